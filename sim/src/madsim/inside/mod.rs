//! Inside the process that runs one seed.

mod certificates;
mod clients;
mod clock;
mod cluster;
mod dice;
mod disk;
mod faults;
mod file;
mod host;
mod main;
mod overseer;
mod profile;
mod registers;
mod run;
mod scenario;
mod verdict;
mod wire;

pub use self::{
    main::main,
    run::{Settings, run},
};
