//! `demo`: the main promise, shown. Three real processes with real disks and real connections; a real
//! graph; the leader of the busiest partition is killed while clients write; then everything that was
//! acknowledged is looked for.

mod check;
mod load;
mod processes;

use std::{process::ExitCode, time::Duration};

use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use self::{
    check::Findings,
    load::{Load, Probe},
    processes::{NodeIndex, Processes},
};
use super::{
    args::{DemoArgs, Output},
    import, output,
    serve::stop_signal,
    verify,
};
use crate::{
    client::{Client, ClientOptions},
    error::{ClusterError, ErrorCode},
    placement::PartitionId,
};

/// The dependencies of a program, as `cargo metadata` tells them.
const GRAPH: &str = include_str!("cargo_metadata.json");
const WRITERS: usize = 8;
/// How long writers write before the kill, and after the next leader is there.
const WRITING: Duration = Duration::from_secs(2);
/// How long the cluster may take to serve, and the killed node to catch up.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn run(args: DemoArgs) -> Result<ExitCode, ClusterError> {
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let story = Story { output: args.output.output };
    let mut processes = Processes::prepare()?;
    let acted = tokio::select! {
        biased;
        () = &mut stop => None,
        acted = act(&mut processes, &story) => Some(acted?),
    };
    let Some(result) = acted else {
        processes.stop().await;
        return Err(ClusterError::new(ErrorCode::NotRunning, "the demo was interrupted"));
    };
    output::print(story.output, &result.json(), || result.sentence())?;
    let code = if result.kept_its_word() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    if !args.once {
        story.say(&processes.how_to_talk_to_them());
        stop.await;
    }
    processes.stop().await;
    Ok(code)
}

/// Talk for people: on standard output where that is what was asked for.
struct Story {
    output: Output,
}

impl Story {
    fn say(&self, text: &str) {
        match self.output {
            // A reader that is gone does not stop the demo.
            Output::Table => drop(output::line(text)),
            Output::Json => output::talk(text),
        }
    }
}

#[derive(Debug)]
struct Outcome {
    findings: Findings,
    killed: String,
    failover: Duration,
    digests_equal: bool,
}

impl Outcome {
    fn kept_its_word(&self) -> bool {
        self.findings.are_clean() && self.digests_equal
    }

    fn json(&self) -> Json {
        json!({
            "acknowledged": self.findings.acknowledged,
            "lost": self.findings.lost,
            "duplicated": self.findings.duplicated,
            "killed": self.killed,
            "failover_ms": milliseconds(self.failover),
            "digests_equal": self.digests_equal,
        })
    }

    fn sentence(&self) -> String {
        let verdict =
            if self.kept_its_word() { "The cluster kept its word" } else { "THE CLUSTER BROKE ITS WORD" };
        format!(
            "{verdict}: {} writes acknowledged, {} lost, {} duplicated, {} out of order; {} was killed, {:.0} ms until \
             the next write; digests {}.",
            self.findings.acknowledged,
            self.findings.lost,
            self.findings.duplicated,
            self.findings.out_of_order,
            self.killed,
            milliseconds(self.failover),
            if self.digests_equal { "equal on all members" } else { "DIFFER" },
        )
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

async fn act(processes: &mut Processes, story: &Story) -> Result<Outcome, ClusterError> {
    story.say(&format!("Starting three nodes, data under {} …", processes.directory().display()));
    processes.start_all()?;
    let options = ClientOptions { deadline: PATIENCE, ..ClientOptions::default() };
    let client = Client::connect(processes.addresses(), options).await?;
    let began = Instant::now();
    serving(&client, processes).await?;
    story.say(&format!("They serve after {:.0} ms.", milliseconds(began.elapsed())));

    let lines = import::lines_of_cargo_metadata(GRAPH)?;
    let (report, nodes) = import::import_text(&client, &lines).await?;
    story.say(&format!(
        "Loaded the dependency graph of a program: {} operations in {:.2} s, {} flushes to disk.",
        report.acknowledged, report.seconds, report.fsyncs
    ));

    let load = Load::start(&client, nodes, WRITERS)?;
    sleep(WRITING).await;
    let (partition, writes) = load.busiest();
    let leader = leader_of(&client, processes, partition).await?;
    let probe = Probe::prepare(&client, partition).await?;
    story.say(&format!(
        "{WRITERS} clients update it; partition {} is the busiest ({writes} writes), led by {}.",
        partition.0,
        processes.name(leader)
    ));
    story.say(&format!("kill -9 {} ({})", processes.pid(leader)?, processes.name(leader)));
    let killed_at = Instant::now();
    processes.kill(leader)?;
    let probed = probe.write_until_acknowledged(killed_at).await?;
    let new_leader = leader_of(&client, processes, partition).await?;
    story.say(&format!(
        "{:.0} ms later partition {} has acknowledged the next write; {} leads it now.",
        milliseconds(probed.failover),
        partition.0,
        processes.name(new_leader)
    ));
    sleep(WRITING).await;
    story.say(&format!("Restarting {} while the clients go on …", processes.name(leader)));
    let restarted = Instant::now();
    processes.start(leader)?;
    sleep(WRITING / 2).await;
    let mut written = load.stop().await?;
    written.push(probed.written);
    caught_up(&client, processes).await?;
    story.say(&format!("It has caught up {:.1} s after its start.", restarted.elapsed().as_secs_f64()));

    let findings = check::check(&client, &written).await?;
    story.say(&format!(
        "Looked for every acknowledged write in the history of every entity: {} found.",
        findings.acknowledged - findings.lost
    ));
    let digests_equal = verify::verify(&client).await?.equal();
    Ok(Outcome { findings, killed: processes.name(leader), failover: probed.failover, digests_equal })
}

async fn serving(client: &Client, processes: &mut Processes) -> Result<(), ClusterError> {
    wait_until(processes, "the cluster did not begin to serve", async || {
        Ok(client.status_now().await?.serving)
    })
    .await?;
    client.refresh().await.map(drop)
}

async fn caught_up(client: &Client, processes: &mut Processes) -> Result<(), ClusterError> {
    wait_until(processes, "the restarted node did not catch up", async || {
        let status = client.status_now().await?;
        let is_level = |node: &crate::client::v1::NodeStatus| {
            node.state == "up"
                && !node.partitions.is_empty()
                && node.partitions.iter().all(|row| row.lag == 0)
        };
        Ok(status.serving && status.nodes.len() == processes::NODES && status.nodes.iter().all(is_level))
    })
    .await
}

/// Asks until the answer is yes. Not being reachable is a no; a process that ended is an error.
async fn wait_until(
    processes: &mut Processes,
    what: &str,
    question: impl AsyncFn() -> Result<bool, ClusterError>,
) -> Result<(), ClusterError> {
    let began = Instant::now();
    while !question().await.unwrap_or(false) {
        processes.check_alive()?;
        if began.elapsed() >= PATIENCE {
            let what = format!(
                "{what} within {} s; the nodes' logs are under {}",
                PATIENCE.as_secs(),
                processes.keep().display()
            );
            return Err(ClusterError::new(ErrorCode::Unavailable, what));
        }
        sleep(POLL).await;
    }
    Ok(())
}

async fn leader_of(
    client: &Client,
    processes: &Processes,
    partition: PartitionId,
) -> Result<NodeIndex, ClusterError> {
    let began = Instant::now();
    loop {
        let cluster = client.refresh().await?;
        let row = cluster.partitions.iter().find(|row| row.partition == partition.0);
        if let Some(leader) = row.and_then(|row| processes.named(&row.leader)) {
            return Ok(leader);
        }
        if began.elapsed() >= PATIENCE {
            return Err(ClusterError::NoLeader);
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_graph_is_one_and_tells_nothing_of_a_machine() {
        let lines = import::lines_of_cargo_metadata(GRAPH).unwrap();
        assert!(lines.lines().count() > 500, "{}", lines.lines().count());
        for trace in ["file://", "registry+", "/home/", "/root/"] {
            assert!(!GRAPH.contains(trace), "{trace}");
        }
    }
}
