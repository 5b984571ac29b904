//! The program `kotoba-sim`.

fn main() {}
