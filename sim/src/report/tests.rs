use super::*;
use crate::{
    check::Check,
    choice::{Recorded, Recorder, Schedule, Seeded},
    machine::{ExactlyOnce, Registers},
    profile::Scale,
    runner::{self, Outcome},
    world::World,
};

fn heading() -> Heading {
    Heading {
        title: "seed 3 </script><b>".to_owned(),
        machine: "registers".to_owned(),
        commands: vec!["kotoba-sim replay 3 && true".to_owned()],
        schedule: vec!["a message is lost".to_owned()],
    }
}

fn run(seed: u64) -> (Outcome, World<ExactlyOnce<Registers>>) {
    runner::read_world(Seeded::new(seed), Scale::Drawn)
}

/// A page whose run fails, though nothing is wrong with it.
fn failing_page(seed: u64) -> (String, Outcome) {
    let (mut outcome, world) = run(seed);
    let violation = crate::check::Violation::new(Check::LogMatching, "a </script> of \"two\" logs & more");
    outcome.violation = Some(violation);
    (page(&heading(), &world, &outcome), outcome)
}

/// Every element that is opened is closed, in order.
fn assert_well_formed(page: &str) {
    let mut open = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if rest.starts_with("!doctype") {
            continue;
        }
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split_whitespace().next().expect("a tag has a name");
        assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric()), "{tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closes what was opened last");
        } else if !matches!(name, "meta" | "br") {
            open.push(name);
            // What is inside is no markup.
            if matches!(name, "script" | "style") {
                let end = rest.find(&format!("</{name}>")).expect("it ends");
                rest = &rest[end..];
            }
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
}

fn data(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("id=\"data\">").expect("the page holds data");
    let (data, _) = rest.split_once("</script>").expect("its data ends");
    serde_json::from_str(data).expect("its data is JSON")
}

#[test]
fn a_page_is_well_formed_and_tells_what_failed() {
    let (page, _) = failing_page(3);
    assert_well_formed(&page);
    assert!(page.contains("failed: log-matching"));
    assert!(page.contains("a &lt;/script&gt; of &quot;two&quot; logs &amp; more"));
    assert!(page.contains("kotoba-sim replay 3 &amp;&amp; true"));
    let data = data(&page);
    assert_eq!(data["check"], "log-matching");
    assert_eq!(data["message"], "a </script> of \"two\" logs & more");
    for list in ["phases", "roles", "marks", "messages", "operations"] {
        assert!(!data[list].as_array().expect("a list").is_empty(), "{list}");
    }
    let roles = data["roles"].as_array().expect("a list");
    assert!(roles.iter().any(|role| role[3] == 3), "somebody leads");
}

#[test]
fn a_page_asks_nothing_of_a_network() {
    let (page, _) = failing_page(3);
    for forbidden in
        ["http:", "https:", "//cdn", "src=", "href=", "@import", "url(", "fetch(", "XMLHttp", "WebSocket"]
    {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn the_same_run_is_the_same_page() {
    assert_eq!(failing_page(3).0, failing_page(3).0);
    assert_ne!(failing_page(3).0, failing_page(4).0);
}

#[test]
fn a_page_is_small_however_much_happened() {
    // Five hosts, a minute.
    let (outcome, world) = runner::read_world::<ExactlyOnce<Registers>>(Seeded::new(1), Scale::Benchmark);
    let page = page(&heading(), &world, &outcome);
    assert!(page.len() < 6_000_000, "{} bytes", page.len());
    assert_well_formed(&page);
    assert_eq!(collect::thinned((0..10).collect(), 20).len(), 10);
    assert_eq!(collect::thinned((0..10).collect(), 0), [0; 0]);
    // Evenly, and the last one stays.
    assert_eq!(collect::thinned((0..10).collect(), 4), [2, 4, 7, 9]);
}

#[test]
fn a_calm_run_has_a_page() {
    let (recorder, notes) = Recorder::new(Recorded::new(&Schedule::default()));
    let (outcome, world) = runner::read_world::<ExactlyOnce<Registers>>(recorder, Scale::Drawn);
    assert!(notes.schedule().choices.is_empty());
    let page = page(&heading(), &world, &outcome);
    assert_well_formed(&page);
    assert!(page.contains("passed") && data(&page)["check"].is_null());
}
