//! Small histories, judged by hand.

use super::*;

/// One operation: the client, what it asks, from when, and what it is told when.
type Row = (u32, RegisterOperation, TrueTime, Ended);

fn history(rows: &[Row]) -> Registered {
    let operations =
        rows.iter().cloned().map(|(client, asked, from, end)| operation(client, asked, from, end));
    History { operations: operations.collect() }
}

#[test]
fn histories_with_an_explanation_have_one() {
    let table: &[(&str, &[Row])] = &[
        ("nothing", &[]),
        ("a read before any write", &[(1, get(), 0, Some((1, found(0, 0))))]),
        (
            "a read sees the write before it",
            &[(1, put(5), 0, Some((1, written(1)))), (2, get(), 2, Some((3, found(5, 1))))],
        ),
        (
            "a read beside a write sees the old value",
            &[(1, put(5), 0, Some((9, written(1)))), (2, get(), 1, Some((2, found(0, 0))))],
        ),
        (
            "a read beside a write sees the new value",
            &[(1, put(5), 0, Some((9, written(1)))), (2, get(), 1, Some((2, found(5, 1))))],
        ),
        (
            "two reads beside a write see the old value and then the new one",
            &[
                (1, put(5), 0, Some((9, written(1)))),
                (2, get(), 1, Some((2, found(0, 0)))),
                (2, get(), 3, Some((4, found(5, 1)))),
            ],
        ),
        (
            "writes beside each other take effect in either order",
            &[
                (1, put(5), 0, Some((9, written(2)))),
                (2, put(6), 0, Some((9, written(1)))),
                (3, get(), 10, Some((11, found(5, 2)))),
            ],
        ),
        (
            "a write of unknown outcome took effect much later",
            &[
                (1, put(5), 0, None),
                (2, get(), 10, Some((11, found(0, 0)))),
                (2, get(), 20, Some((21, found(5, 1)))),
            ],
        ),
        (
            "a write of unknown outcome never took effect",
            &[(1, put(5), 0, None), (2, get(), 10, Some((11, found(0, 0))))],
        ),
        (
            "a read of unknown outcome says nothing",
            &[(1, get(), 0, None), (2, put(5), 10, Some((11, written(1))))],
        ),
        (
            "two writes of unknown outcome hide behind one that is seen",
            &[(1, put(5), 0, None), (2, put(6), 0, None), (3, put(7), 5, Some((6, written(3))))],
        ),
        (
            "a conditional write is refused where another came first",
            &[
                (1, put_if(0, 5), 0, Some((9, refused(1)))),
                (2, put_if(0, 6), 0, Some((9, written(1)))),
                (3, get(), 10, Some((11, found(6, 1)))),
            ],
        ),
        (
            "at one moment, neither is before the other",
            &[(1, put(5), 0, Some((5, written(1)))), (2, get(), 5, Some((6, found(0, 0))))],
        ),
        (
            "keys have nothing to do with each other",
            &[
                (1, put(5), 0, Some((1, written(1)))),
                (2, RegisterOperation::Get { key: 2 }, 2, Some((3, found(0, 0)))),
            ],
        ),
    ];
    for (name, rows) in table {
        assert!(is_linearizable(&history(rows)), "{name}");
    }
}

#[test]
fn histories_without_an_explanation_have_none() {
    let table: &[(&str, &[Row])] = &[
        ("a read of what nobody wrote", &[(1, get(), 0, Some((1, found(5, 1))))]),
        ("a stale read", &[(1, put(5), 0, Some((1, written(1)))), (2, get(), 2, Some((3, found(0, 0))))]),
        (
            "a read of what is written later",
            &[(2, get(), 0, Some((1, found(5, 1)))), (1, put(5), 2, Some((3, written(1))))],
        ),
        (
            "a write of unknown outcome is seen before it was called",
            &[(2, get(), 0, Some((1, found(5, 1)))), (1, put(5), 2, None)],
        ),
        (
            "two reads beside a write see the new value and then the old one",
            &[
                (1, put(5), 0, Some((9, written(1)))),
                (2, get(), 1, Some((2, found(5, 1)))),
                (3, get(), 3, Some((4, found(0, 0)))),
            ],
        ),
        (
            "a write of unknown outcome is seen and then undone",
            &[
                (1, put(5), 0, None),
                (2, get(), 10, Some((11, found(5, 1)))),
                (2, get(), 20, Some((21, found(0, 0)))),
            ],
        ),
        (
            "a lost update",
            &[
                (1, put(5), 0, Some((1, written(1)))),
                (2, put(6), 2, Some((3, written(1)))),
                (3, get(), 4, Some((5, found(6, 1)))),
            ],
        ),
        (
            "a write that took effect twice",
            &[(1, put(5), 0, Some((1, written(1)))), (2, get(), 2, Some((3, found(5, 2))))],
        ),
        (
            "two conditional writes that both came first",
            &[(1, put_if(0, 5), 0, Some((9, written(1)))), (2, put_if(0, 6), 0, Some((9, written(1))))],
        ),
        (
            "a conditional write that was refused for no reason",
            &[(1, put_if(0, 5), 0, Some((1, refused(0))))],
        ),
        (
            "two reads see two writes in different orders",
            &[
                (1, put(5), 0, Some((9, written(1)))),
                (2, put(6), 0, Some((9, written(2)))),
                (3, get(), 10, Some((11, found(6, 2)))),
                (4, get(), 12, Some((13, found(5, 2)))),
            ],
        ),
    ];
    for (name, rows) in table {
        assert!(!is_linearizable(&history(rows)), "{name}");
    }
}

#[test]
fn groups_are_judged_apart() {
    let mut two = history(&[(1, put(5), 0, Some((1, written(1)))), (2, get(), 2, Some((3, found(0, 0))))]);
    two.operations[1].group = GroupId(2);
    assert!(is_linearizable(&two));
}

#[test]
fn a_witness_names_the_answer_and_what_was_expected() {
    let history = history(&[
        (1, put(5), 0, Some((1, written(1)))),
        (1, put(6), 2, Some((3, written(2)))),
        (2, get(), 4, Some((5, found(5, 1)))),
        (1, put(7), 6, Some((7, written(3)))),
        (2, get(), 8, Some((9, found(7, 3)))),
    ]);
    let Judgement::NotLinearizable(witness) = check::<Registers>(&history, STEPS) else {
        panic!("the first read is stale");
    };
    assert_eq!((witness.key, witness.last, &witness.order[..]), (1, 2, &[0, 1][..]));
    let expected = format!("{:?}", found(6, 2));
    assert_eq!(witness.unplaced, [Unplaced { operation: 2, expected: expected.clone() }]);
    let text = witness.to_string();
    assert!(text.contains("client 2 #0: Get { key: 1 }") && text.contains(&expected), "{text}");
}

#[test]
fn steps_that_do_not_suffice_are_no_explanation() {
    // Called first and done second, so that the first guess is wrong.
    let history = history(&[(1, put(6), 0, Some((9, written(2)))), (2, put(5), 1, Some((3, written(1))))]);
    let unknown = Judgement::Unknown { group: GROUP, key: 1, steps: 2 };
    assert_eq!(check::<Registers>(&history, 2), unknown);
    assert_eq!(check::<Registers>(&history, 3), Judgement::Linearizable);
}

#[test]
fn the_same_placed_operations_with_the_same_state_are_looked_at_once() {
    // Twelve operations beside each other in any order: 12! orders, but only 2^12 sets.
    let mut rows: Vec<Row> = (0..12).map(|client| (client, put_if(9, 5), 0, Some((9, refused(0))))).collect();
    rows.push((12, get(), 10, Some((11, found(5, 1)))));
    assert!(!is_linearizable(&history(&rows)));
}
