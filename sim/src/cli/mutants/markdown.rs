//! The kill table as a page's table.

use super::table::Row;

/// One line for each bug; the worst of its ranges is shown.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| bug | what is done wrong | found by (times) | ranges | seeds, worst | simulated s, worst | CPU s, worst |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let checks: Vec<_> = row.checks().iter().map(|(check, times)| format!("{check} ({times})")).collect();
        let checks = if checks.is_empty() { "–".to_owned() } else { checks.join(", ") };
        let worst = row.worst();
        let survived = if row.killed { "" } else { "**survives** " };
        text.push_str(&format!(
            "| {} | {} | {checks} | {survived}{} of {} | {} | {:.0} | {:.1} |\n",
            row.id,
            row.title,
            row.found(),
            row.hunts.len(),
            worst.seeds,
            worst.simulated_seconds,
            worst.cpu_seconds
        ));
    }
    text
}
