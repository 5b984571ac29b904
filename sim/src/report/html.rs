//! The page around the picture.

use std::fmt::Write as _;

use super::{
    Heading,
    collect::{Data, micros},
};
use crate::{
    choice::Chooser,
    machine::StateMachine,
    profile::{Profile, Scale},
    runner::{Outcome, seconds},
    trace::{Detail, Kind, Line, MessageKind},
    world::World,
};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Events told beside the picture.
const STORY_MAX: usize = 70;
/// The last lines of all, beats among them.
const LAST_IN_FULL: usize = 16;
/// Choices told in words.
const SCHEDULE_MAX: usize = 400;
/// Characters of an event told beside the picture, and of the violation.
const WORDS_MAX: usize = 400;
const MESSAGE_MAX: usize = 4_000;

/// The page of a run whose trace was read.
#[must_use]
pub fn page<M: StateMachine>(heading: &Heading, world: &World<M>, outcome: &Outcome) -> String {
    let violation = outcome.violation.as_ref();
    let violation = violation.map(|found| (found.check.to_string(), shortened(&found.message, MESSAGE_MAX)));
    let data = Data::of(world, violation);
    let json = serde_json::to_string(&data).expect("reports are plain data");
    // Data may hold what ends a script.
    let json = json.replace('<', "\\u003c");
    let parts = [
        ("@TITLE@", escaped(&format!("{} ({})", heading.title, heading.machine))),
        ("@STYLE@", STYLE.trim_end().to_owned()),
        ("@HEADER@", header(heading, world, outcome, &data)),
        ("@STORY@", story(world.trace().lines(), &data)),
        ("@FOOTER@", footer(heading, world, outcome, &data)),
        ("@DATA@", json),
        ("@SCRIPT@", SCRIPT.trim_end().to_owned()),
    ];
    let mut page = String::new();
    let mut rest = PAGE;
    // In the order of the page, so that no part is looked at for names.
    for (name, part) in parts {
        let (before, after) = rest.split_once(name).expect("the page names its parts in this order");
        page.push_str(before);
        page.push_str(&part);
        rest = after;
    }
    page + rest
}

fn header<M: StateMachine>(heading: &Heading, world: &World<M>, outcome: &Outcome, data: &Data) -> String {
    let mut html = String::new();
    let (class, verdict) = match &data.check {
        Some(check) => (" failed", format!("failed: {check}")),
        None => ("", "passed".to_owned()),
    };
    line(
        &mut html,
        &format!(
            "<h1>{} <span class=\"verdict{class}\">{}</span></h1>",
            escaped(&heading.title),
            escaped(&verdict)
        ),
    );
    if data.check.is_some() {
        line(&mut html, &format!("<div class=\"finding\" tabindex=\"0\">{}</div>", escaped(&data.message)));
    }
    let facts = [
        ("machine", heading.machine.clone()),
        ("hosts", data.hosts.to_string()),
        ("groups", world.profile().groups.to_string()),
        ("clients", data.clients.to_string()),
        ("simulated", format!("{:.3} s", seconds(world.now()))),
        ("events", outcome.events.to_string()),
        ("hash", format!("{:016x}", outcome.hash)),
    ];
    line(&mut html, "<ul class=\"facts\">");
    for (name, value) in facts {
        line(&mut html, &format!("<li>{name} <b>{}</b></li>", escaped(&value)));
    }
    line(&mut html, "</ul>");
    for command in &heading.commands {
        let command = escaped(command);
        line(&mut html, &format!("<pre tabindex=\"0\"><code>{command}</code></pre>"));
    }
    html
}

/// What happened last, in words.
fn story(lines: &[Line], data: &Data) -> String {
    let told = last_told(lines);
    let title = if data.check.is_some() { "Before it failed" } else { "What happened last" };
    let mut html = format!("<h2>{title}</h2>\n<ol>\n");
    for event in &told {
        let behind = data.end.saturating_sub(micros(event.at));
        let when = if data.check.is_none() { format!("{:.4} s", seconds(event.at)) } else { ago(behind) };
        let who = match (event.from, event.host) {
            (Some(from), Some(host)) => format!("{from} → {host}"),
            (None, Some(host)) => format!("host {host}"),
            (_, None) => String::new(),
        };
        let lost = if event.kind == Kind::Lost { "lost: " } else { "" };
        let text = escaped(&shortened(&format!("{lost}{}", event.text), WORDS_MAX));
        let kind = serde_json::to_value(event.kind).expect("a kind is a word");
        let host = event.host.map_or(-1, i64::from);
        line(
            &mut html,
            &format!(
                "<li class=\"{}\"><button data-t=\"{}\" data-host=\"{host}\" data-text=\"{text}\"><time>{when}</time><span class=\"words\"><span class=\"who\">{who}</span> {text}</span></button></li>",
                kind.as_str().unwrap_or_default(),
                micros(event.at),
            ),
        );
    }
    if data.check.is_some() && told.last().is_none_or(|last| last.kind != Kind::Violation) {
        let text = escaped(&shortened(&data.message, WORDS_MAX));
        line(
            &mut html,
            &format!(
                "<li class=\"violation\"><button data-t=\"{}\" data-host=\"-1\" data-text=\"{text}\"><time>now</time><span class=\"words\">{text}</span></button></li>",
                data.end
            ),
        );
    }
    html.push_str("</ol>");
    html
}

/// The last events, the violation behind all others of its moment.
fn last_told(lines: &[Line]) -> Vec<&Line> {
    let late = lines.len().saturating_sub(LAST_IN_FULL);
    let told = lines
        .iter()
        .enumerate()
        .filter(|(place, line)| is_telling(line) || (*place >= late && line.kind != Kind::Lost));
    let mut told: Vec<&Line> = told.map(|(_, line)| line).collect();
    told.sort_by_key(|line| line.kind == Kind::Violation);
    told.drain(..told.len().saturating_sub(STORY_MAX));
    told
}

/// Beats say little, and there are many.
fn is_telling(line: &Line) -> bool {
    match line.detail {
        Detail::Message { of, .. } => match of {
            MessageKind::Beat | MessageKind::BeatReply | MessageKind::Beats => false,
            MessageKind::VoteAsk
            | MessageKind::VoteReply
            | MessageKind::Append
            | MessageKind::AppendReply
            | MessageKind::SnapshotChunk
            | MessageKind::SnapshotReply => true,
        },
        Detail::None
        | Detail::Role { .. }
        | Detail::Started
        | Detail::Killed
        | Detail::Paused(_)
        | Detail::Wiped
        | Detail::Link(..) => true,
    }
}

fn ago(micros: u64) -> String {
    match micros {
        0 => "now".to_owned(),
        1..1_000 => format!("−{micros} µs"),
        1_000..1_000_000 => format!("−{}.{:02} ms", micros / 1_000, micros % 1_000 / 10),
        _ => format!("−{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

fn footer<M: StateMachine>(heading: &Heading, world: &World<M>, outcome: &Outcome, data: &Data) -> String {
    let mut html = String::new();
    if !heading.schedule.is_empty() {
        let shown = heading.schedule.iter().take(SCHEDULE_MAX);
        line(
            &mut html,
            "<details open><summary>The choices that are not calm, and what came of them</summary>",
        );
        let text: Vec<_> = shown.map(|line| escaped(line)).collect();
        line(&mut html, &format!("<pre>{}</pre>", text.join("\n")));
        if heading.schedule.len() > SCHEDULE_MAX {
            line(&mut html, &format!("<p>and {} more lines</p>", heading.schedule.len() - SCHEDULE_MAX));
        }
        line(&mut html, "</details>");
    }
    let counts = outcome.situations.faults().into_iter().chain(outcome.situations.met());
    let counts: Vec<_> = counts
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("<li><span>{}</span><b>{count}</b></li>", escaped(name)))
        .collect();
    line(&mut html, "<details open><summary>Faults and situations met</summary>");
    line(&mut html, &format!("<ul class=\"columns\">{}</ul></details>", counts.join("\n")));
    line(
        &mut html,
        "<details><summary>How the run was set up; what is as in the calmest run is faint</summary>",
    );
    line(&mut html, &format!("<ul class=\"columns\">{}</ul></details>", profile(world.profile())));
    if !data.omitted.is_empty() {
        let omitted = data.omitted.join("; ");
        line(
            &mut html,
            &format!("<p class=\"quiet\">Left out to keep this page small: {}.</p>", escaped(&omitted)),
        );
    }
    html
}

/// Every setting, with those of the calmest run told apart.
fn profile(profile: &Profile) -> String {
    let calm = format!("{:#?}", Profile::draw(&mut Chooser::calm(), Scale::Drawn));
    let own = format!("{profile:#?}");
    let mut html = String::new();
    for (own, calm) in own.lines().zip(calm.lines()) {
        let Some((name, value)) = own.trim().trim_end_matches(',').split_once(": ") else { continue };
        let class = if own == calm { " class=\"calm\"" } else { "" };
        if !value.ends_with('{') && !value.ends_with('(') {
            let name = name.replace('_', " ");
            line(
                &mut html,
                &format!("<li{class}><span>{}</span><span>{}</span></li>", escaped(&name), escaped(value)),
            );
        }
    }
    html
}

fn line(html: &mut String, line: &str) {
    writeln!(html, "{line}").expect("a string takes everything");
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
