//! All nodes share a topic and talk: who hears what, when, and at what cost.
//!
//! Counted are members that were on for a while when something was said: who has just come finds
//! its neighbours first, and gets what was said by comparing with them. At the end everybody who is
//! on and honest should have everything that history holds.

use core::time::Duration;
use std::collections::BTreeMap;

use baran_proto::node::Input;
use baran_proto::time::Instant;
use baran_proto::topic::access::Access;
use baran_proto::topic::entry::KIND_MESSAGE;
use baran_proto::topic::id::TopicId;
use baran_proto::topic::machine::{Command, RequestId};
use bytes::Bytes;

use super::{Run, due};
use crate::report::{Report, Target, quantile};
use crate::world::TopicTotals;

/// The topic's name.
const NAME: &str = "everybody";

/// In this time all join the topic, and in this they settle.
const JOIN: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(60);

/// How long a member has been on to be counted.
const COUNTED: Duration = Duration::from_secs(30);

/// What is said reaches whom it reaches in this time.
const SOON: Duration = Duration::from_secs(3);

/// How long the last ones have to catch up.
const TAIL: Duration = Duration::from_secs(90);

/// How long the network is cut, if it is.
const CUT: Duration = Duration::from_secs(60);

/// Bytes of a message.
const LEN: usize = 1_024;

/// A message, when it was said, and the members that were on for a while: each with its run.
struct Said {
    at: Instant,
    by: u32,
    counted: BTreeMap<u32, u32>,
}

/// What members heard.
#[derive(Default)]
struct Hearing {
    /// How far each was read, in which run of it.
    cursors: BTreeMap<u32, (u32, u64)>,
    /// When each message came to each member first.
    heard: BTreeMap<(usize, u32), Instant>,
}

pub(super) fn run(run: &mut Run<'_>, report: &mut Report) {
    run.populate(0.0);
    let flooders = run.args.flooders;
    if flooders > 0 {
        for (number, host) in (0_u32..).zip(&mut run.world.hosts) {
            host.is_flooder = !number.is_multiple_of(flooders + 1);
        }
    }
    run.run_for(super::SETTLED, |_, _| {});
    let topic = Access::public(NAME).expect("the name is short").keys().id;
    run.run_for(JOIN, |run, share| join_all(run, topic, share));
    run.run_for(SETTLE, |run, _| join_all(run, topic, 1.0));
    let mut hearing = Hearing::default();
    let before = run.world.totals().topics;
    let said = talk(run, topic, &mut hearing);
    let talked = run.world.totals().topics;
    let after = run.world.now() + TAIL;
    while run.world.now() < after {
        run.run_for(Duration::from_secs(1), |run, _| join_all(run, topic, 1.0));
        hearing.read(run, topic);
    }
    figures(run, topic, &said, &hearing, report);
    costs(&before, &talked, &hearing, report);
}

/// Lets members join that are on and have not yet: all of them at the end of the time.
fn join_all(run: &mut Run<'_>, topic: TopicId, share: f64) {
    let hosts = run.world.hosts.len();
    for host in 0..due(hosts, share) {
        let Ok(number) = u32::try_from(host) else { return };
        let node = run.world.hosts[host].node();
        if node.is_some_and(|node| node.topics().access(topic).is_none()) {
            let access = Box::new(Access::public(NAME).expect("the name is short"));
            let (request, members) = (RequestId(0), Vec::new());
            let command = Command::Join { request, access, members };
            run.world.input(number, Input::Topic(command));
        }
    }
}

/// Members say things until the end.
fn talk(run: &mut Run<'_>, topic: TopicId, hearing: &mut Hearing) -> Vec<Said> {
    let time = (run.end - run.world.now()).saturating_sub(TAIL).max(Duration::from_secs(30));
    let messages = run.args.messages as usize;
    let (cut_at, mut is_cut) = (run.world.now() + time / 4, false);
    let mut said = Vec::new();
    let (from, to) = (run.world.now(), run.world.now() + time);
    while run.world.now() < to {
        let share = (run.world.now() - from).as_secs_f64() / time.as_secs_f64();
        while said.len() < due(messages, share) {
            let Some(by) = speaker(run) else { break };
            let at = run.world.now();
            let number = u32::try_from(said.len()).unwrap_or(u32::MAX);
            let mut payload = vec![0; LEN];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            let (request, kind, payload) = (RequestId(1), KIND_MESSAGE, Bytes::from(payload));
            said.push(Said { at, by, counted: counted(run) });
            run.world.input(by, Input::Topic(Command::Send { request, topic, kind, payload }));
        }
        if run.args.cut {
            let should = run.world.now() >= cut_at && run.world.now() < cut_at + CUT;
            if should != is_cut {
                is_cut = should;
                run.world.set_cut(is_cut);
            }
        }
        run.run_for(Duration::from_secs(1), |run, _| join_all(run, topic, 1.0));
        hearing.read(run, topic);
    }
    said
}

/// Somebody honest who has been on for a while.
fn speaker(run: &mut Run<'_>) -> Option<u32> {
    (0..1_000).find_map(|_| {
        let by = run.queries.pick(&run.world)?;
        let host = &run.world.hosts[by as usize];
        let is_ready = run.world.now() - host.since >= COUNTED && !host.is_flooder;
        is_ready.then_some(by)
    })
}

fn counted(run: &Run<'_>) -> BTreeMap<u32, u32> {
    let now = run.world.now();
    let hosts = (0..).zip(&run.world.hosts);
    hosts
        .filter(|(_, host)| host.is_on && !host.is_flooder && now - host.since >= COUNTED)
        .map(|(number, host)| (number, host.run))
        .collect()
}

impl Hearing {
    /// Reads what came.
    fn read(&mut self, run: &mut Run<'_>, topic: TopicId) {
        for (at, host, in_run, next) in core::mem::take(&mut run.queries.topic_news) {
            let there = &run.world.hosts[host as usize];
            if there.run != in_run {
                continue;
            }
            let cursor = self.cursors.entry(host).or_insert((in_run, 0));
            if cursor.0 != in_run {
                *cursor = (in_run, 0);
            }
            let from = cursor.1;
            let count = usize::try_from(next.saturating_sub(from)).unwrap_or(0);
            let topics = there.node().map(baran_proto::node::Node::topics);
            let read = topics.and_then(|topics| topics.read(topic, from, count, usize::MAX));
            let Some((entries, _)) = read else { continue };
            cursor.1 = cursor.1.max(next);
            for entry in entries {
                let head = entry.payload.as_ref().and_then(|bytes| bytes.first_chunk::<4>());
                let number = head.map_or(usize::MAX, |head| u32::from_be_bytes(*head) as usize);
                self.heard.entry((number, host)).or_insert(at);
            }
        }
    }
}

fn figures(run: &Run<'_>, topic: TopicId, said: &[Said], hearing: &Hearing, report: &mut Report) {
    let (mut pairs, mut soon) = (0_u64, 0_u64);
    let mut times = Vec::new();
    for (number, one) in said.iter().enumerate() {
        for (host, in_run) in &one.counted {
            let there = &run.world.hosts[*host as usize];
            let heard = hearing.heard.get(&(number, *host));
            // Who left within the time cannot be asked for it.
            let has_stayed = there.is_on && there.run == *in_run;
            if *host == one.by || !has_stayed && heard.is_none() {
                continue;
            }
            pairs += 1;
            if let Some(at) = heard {
                let time = *at - one.at;
                soon += u64::from(time <= SOON);
                times.push(time.as_secs_f64() * 1_000.0);
            }
        }
    }
    let members = run.world.hosts.iter().filter(|host| host.is_on && !host.is_flooder);
    let (mut have, mut all) = (0_u64, 0_u64);
    let expect = said.len() as u64;
    for host in members {
        let is_settled = run.world.now() - host.since >= COUNTED;
        let read = host.node().and_then(|node| {
            let (read, _) = node.topics().read(topic, 0, usize::MAX, usize::MAX)?;
            Some(read.len() as u64)
        });
        if is_settled {
            have += read.unwrap_or_default().min(expect);
            all += expect;
        }
    }
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let honest = run.args.flooders == 0;
    let (in_end, in_time) = if honest { (1.0, 0.999) } else { (0.99, 0.0) };
    let least = |share| (share > 0.0).then_some(Target::AtLeast(share));
    report.figure("messages", "messages said", expect as f64, "", None);
    report.figure(
        "delivered",
        "in the end, of what was said, members have",
        share(have, all),
        "%",
        least(in_end),
    );
    report.figure(
        "delivered_3s",
        "reached members that were there within 3 s",
        share(soon, pairs),
        "%",
        least(in_time),
    );
    for (key, name, q) in [
        ("delay_p50_ms", "delay, median", 0.5),
        ("delay_p99_ms", "delay, 99th percentile", 0.99),
        ("delay_max_ms", "delay, longest", 1.0),
    ] {
        report.figure(key, name, quantile(&mut times, q), "ms", None);
    }
}

fn costs(before: &TopicTotals, talked: &TopicTotals, hearing: &Hearing, report: &mut Report) {
    let delivered = hearing.heard.len().max(1) as f64;
    let copies = (talked.pushed.0 - before.pushed.0 + talked.fetched - before.fetched) as f64;
    let bytes = (talked.all.1 - before.all.1) as f64;
    report.figure(
        "copies",
        "copies of a payload per member",
        copies / delivered,
        "",
        Some(Target::AtMost(1.3)),
    );
    report.figure(
        "bytes_per_byte",
        "bytes sent per byte of payload delivered",
        bytes / (delivered * LEN as f64),
        "",
        None,
    );
    let fetched = (talked.fetched - before.fetched) as f64;
    report.figure("fetched", "of the copies, fetched by comparing", fetched / copies, "%", None);
}
