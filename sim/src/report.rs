//! A run as a page to look at: a lane for each host over time, what clients asked below, and what
//! happened last in words.
//!
//! The page is one file that asks nothing of any network. What it holds is bounded (`report/collect.rs`);
//! what was left out stands at its end. The same run gives the same bytes.

mod collect;
mod html;

pub use html::page;

/// What stands over the picture.
#[derive(Clone, Debug)]
pub struct Heading {
    /// What was run: `seed 17`.
    pub title: String,
    /// What is replicated.
    pub machine: String,
    /// Commands that repeat the run.
    pub commands: Vec<String>,
    /// The choices of the run in words, where they are few.
    pub schedule: Vec<String>,
}

#[cfg(test)]
mod tests;
