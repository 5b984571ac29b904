//! The meta group's state and commands.

use kotoba_db_cluster::placement::{MetaCommand, MetaState};

use crate::Situations;

/// A command behind its length, then a state: a state that decodes bears every command, and stays one that
/// decodes.
pub(super) fn state_and_command(bytes: &[u8], situations: &mut Situations) -> Option<()> {
    let (&length, rest) = bytes.split_first()?;
    let (command, state) = rest.split_at_checked(usize::from(length))?;
    let command = MetaCommand::decode(command).ok();
    if let Some(command) = &command {
        assert_eq!(MetaCommand::decode(&command.encode()).as_ref(), Ok(command));
    }
    let mut state = MetaState::decode(state).ok()?;
    assert_eq!(MetaState::decode(&state.encode()).as_ref(), Ok(&state));
    situations.reach("a meta state");
    let _outcome = state.apply(command?);
    assert_eq!(MetaState::decode(&state.encode()).as_ref(), Ok(&state), "a command keeps a state's promises");
    situations.reach("a meta command carried out");
    Some(())
}
