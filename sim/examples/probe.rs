//! probe
use kotoba_sim::{
    choice::Seeded,
    machine::{ExactlyOnce, Registers},
    profile::Scale,
    runner,
};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let from: u64 = args[1].parse().unwrap();
    let to: u64 = args[2].parse().unwrap();
    let scale = if args.get(3).is_some_and(|a| a == "bench") { Scale::Benchmark } else { Scale::Drawn };
    if args.get(3).is_some_and(|a| a == "read") {
        let (o, w) = runner::read_world::<ExactlyOnce<Registers>>(Seeded::new(from), scale);
        for l in w.trace().lines() {
            println!("{:.6} h{:?} {:?} {}", l.at as f64 / 1e9, l.host, l.kind, l.text);
        }
        println!("{:?} {:#?}", o.violation.map(|v| v.to_string()), w.profile());
        return;
    }
    let begin = std::time::Instant::now();
    let mut total = kotoba_sim::situations::Situations::default();
    let (mut sim, mut events) = (0.0, 0);
    for seed in from..to {
        let o = runner::run_seed::<ExactlyOnce<Registers>>(seed, scale);
        if let Some(v) = &o.violation {
            println!("seed {seed}: {}", v.to_string().chars().take(1500).collect::<String>());
        }
        total.add(&o.situations);
        sim += o.simulated.as_secs_f64();
        events += o.events;
    }
    let cpu = begin.elapsed().as_secs_f64();
    println!("{:#?}", total.named());
    println!("sim {sim} wall {cpu} ratio {} events {events} per sec {}", sim / cpu, events as f64 / cpu);
}
