mod brute_force;
mod generated;
mod just_in_time;
mod simulated;
mod tables;

use super::*;
use crate::{
    history::{End, Operation, TrueTime},
    machine::{RegisterAnswer, RegisterOperation, Registers},
};

type Registered = History<RegisterOperation, RegisterAnswer>;
type Ended = Option<(TrueTime, RegisterAnswer)>;

const GROUP: GroupId = GroupId(1);

fn operation(
    client: u32,
    operation: RegisterOperation,
    invoked: TrueTime,
    ended: Ended,
) -> Operation<RegisterOperation, RegisterAnswer> {
    let end = match ended {
        Some((at, answer)) => End::Answered { at, answer, index: Index::ZERO },
        None => End::Unknown,
    };
    Operation { client, serial: 0, group: GROUP, operation, invoked, end }
}

fn put(value: u64) -> RegisterOperation {
    RegisterOperation::Put { key: 1, value }
}

fn put_if(writes: u64, value: u64) -> RegisterOperation {
    RegisterOperation::PutIf { key: 1, writes, value }
}

fn get() -> RegisterOperation {
    RegisterOperation::Get { key: 1 }
}

fn written(writes: u64) -> RegisterAnswer {
    RegisterAnswer::Written { writes }
}

fn refused(writes: u64) -> RegisterAnswer {
    RegisterAnswer::Refused { writes }
}

fn found(value: u64, writes: u64) -> RegisterAnswer {
    RegisterAnswer::Found { value, writes }
}

fn is_linearizable(history: &Registered) -> bool {
    match check::<Registers>(history, STEPS) {
        Judgement::Linearizable => true,
        Judgement::NotLinearizable(_) => false,
        Judgement::Unknown { .. } => panic!("a small history takes few steps"),
    }
}
