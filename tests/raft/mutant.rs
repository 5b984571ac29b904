//! Puts a known bug into the process where `KOTOBA_MUTANT` names one: the tests must then fail.

/// To be called by a test before anything else. Does nothing in a build without mutants.
pub(crate) fn put_in() {
    #[cfg(kotoba_mutants)]
    if let Ok(id) = std::env::var("KOTOBA_MUTANT") {
        use kotoba_db_cluster::mutants::{Mutant, activate};
        let mutant = Mutant::by_id(&id).unwrap_or_else(|| panic!("there is no mutant {id}"));
        activate(Some(mutant));
    }
}
