//! The driver's part in serving others: when, and no more than the owner allows.
//!
//! Frames are counted where they are forwarded; what else is served passes here on its way out.
//! Both take of one [`Allowance`](baran_proto::allowance). Of the bytes of a day it is granted one
//! part after the other, each when the store has it as used: a node that is killed and started
//! again cannot serve them twice. What of the last part was not used is lost to the others then,
//! not to the owner.

use baran_proto::allowance::{Lease, answer_cost, serves};
use baran_proto::node::Input;
use baran_proto::time::Instant;
use baran_proto::wire::{MESSAGE_LEN_MAX, Message, NodeMessage};
use tracing::{info, warn};

use super::{Command, Driver};
use crate::host::{Circumstances, Host};
use crate::persist::unix_now;
use crate::serve::{Pause, ServeLimits, ServeStatus};

/// Parts that a day's bytes are granted in: what a crash may cost.
const PARTS_PER_DAY: u64 = 16;

/// Seconds at the full rate that such a part lasts: the next one is on disk before half of it is
/// used, and the crash of a node that serves little costs little.
const PART_S: (u64, u64) = (2, 60);

/// What is served, and whether.
#[derive(Debug)]
pub(super) struct Serving {
    limits: ServeLimits,
    host: Host,
    circumstances: Circumstances,
    pause: Option<Pause>,
    /// What the machine was told of how full the allowance is.
    load: u8,
    /// The last lease that the disk was asked for.
    asked: Option<Lease>,
    is_asking: bool,
    answer_bytes: u64,
}

impl Serving {
    /// `limits` allow nothing for a node that only passes by.
    pub(super) fn new(limits: ServeLimits) -> Self {
        let host = Host::default();
        let circumstances = host.look();
        // As the machine was told; the first look may find otherwise.
        let pause = (!limits.allow_anything()).then_some(Pause::Off);
        let (asked, is_asking, answer_bytes) = (None, false, 0);
        Self { limits, host, circumstances, pause, load: 0, asked, is_asking, answer_bytes }
    }

    /// Whether the owner wants others to be served, at times at least.
    pub(super) fn is_wanted(&self) -> bool {
        self.limits.allow_anything()
    }

    /// Whether anybody is served.
    pub(super) fn is_on(&self) -> bool {
        self.pause.is_none()
    }

    /// Why nobody may be served.
    fn pause(&self, is_day_used: bool) -> Option<Pause> {
        let Self { limits, circumstances, .. } = self;
        if !self.is_wanted() {
            Some(Pause::Off)
        } else if limits.hours.is_some_and(|hours| !hours.contains(circumstances.hour)) {
            Some(Pause::Hours)
        } else if circumstances.is_on_battery {
            Some(Pause::Battery)
        } else if circumstances.is_metered {
            Some(Pause::Metered)
        } else if is_day_used {
            Some(Pause::DayUsed)
        } else {
            None
        }
    }

    /// The next part of the day to be granted, if it is time for it.
    fn next_lease(&self, used: u64, ends: Instant) -> Option<Lease> {
        let all = self.limits.bytes_per_day;
        let lasting = |seconds: u64| self.limits.rate_bytes_per_s.saturating_mul(seconds);
        let part = (all / PARTS_PER_DAY).clamp(lasting(PART_S.0), lasting(PART_S.1));
        let part = part.max(MESSAGE_LEN_MAX as u64);
        let asked = self.asked.filter(|lease| lease.ends == ends).map_or(0, |lease| lease.bytes);
        let is_due = asked < all && asked < used.saturating_add(part / 2);
        let bytes = used.saturating_add(part).min(all);
        (is_due && !self.is_asking).then_some(Lease { bytes, ends })
    }
}

impl Driver {
    /// Whether a message may go out: it takes what it costs of the owner's allowance if it serves
    /// others. One that may not is dropped, or a refusal takes its place; whoever asked turns to
    /// somebody else.
    pub(super) fn may_send(&mut self, message: &NodeMessage) -> bool {
        if !serves(message) {
            return true;
        }
        let bytes = answer_cost(Message::Node(message.clone()).encode().len());
        let now = self.now();
        let is_granted = self.serving.is_on()
            && self.endpoint.control().with_forwarder(|forwarder| {
                forwarder.allowance().take_for_answer(now, bytes).is_ok()
            });
        if is_granted {
            self.serving.answer_bytes += bytes;
        }
        is_granted
    }

    /// Goes on with the day of an earlier run. Before anything is served.
    pub(super) fn resume_day(&self, served: Option<(u64, baran_proto::time::UnixTime)>) {
        let now = self.now();
        self.endpoint.control().with_forwarder(|forwarder| {
            let allowance = forwarder.allowance();
            if let Some((used, until)) = served.filter(|(_, until)| *until > unix_now()) {
                allowance.resume(now, used, until - unix_now());
            }
            if self.disk.is_lasting() {
                let (used, ends) = allowance.today(now);
                allowance.lease(Lease { bytes: used, ends });
            }
        });
    }

    /// Sees to it that others are served if and only if they may be, and that the machine knows
    /// how much is served.
    pub(super) fn see_to_serving(&mut self) {
        let now = self.now();
        let ((used, ends), is_day_used, load) =
            self.endpoint.control().with_forwarder(|forwarder| {
                let allowance = forwarder.allowance();
                (allowance.today(now), allowance.is_day_used(now), allowance.load(now))
            });
        if core::mem::replace(&mut self.serving.load, load) != load {
            self.input(Input::Load(load));
        }
        let pause = self.serving.pause(is_day_used);
        if pause != self.serving.pause {
            let was_on = self.serving.is_on();
            self.serving.pause = pause;
            info!(why = pause.map(Pause::as_str), "serving others: {}", pause.is_none());
            if was_on != pause.is_none() {
                self.input(Input::Serve(pause.is_none()));
            }
        }
        if let Some(lease) = self.serving.next_lease(used, ends).filter(|_| self.disk.is_lasting())
        {
            self.serving.asked = Some(lease);
            self.serving.is_asking = true;
            let writing = self.disk.write_served(lease.bytes, unix_now() + (ends - now));
            let own = self.own.clone();
            tokio::spawn(async move {
                let written = writing.await;
                if let Err(error) = &written {
                    warn!(%error, "what is served cannot be counted on disk");
                }
                drop(own.send(Command::Leased(written.is_ok().then_some(lease))).await);
            });
        }
    }

    /// A part of the day is on disk, or cannot be.
    pub(super) fn handle_leased(&mut self, lease: Option<Lease>) {
        self.serving.is_asking = false;
        match lease {
            Some(lease) => {
                let control = self.endpoint.control();
                control.with_forwarder(|forwarder| forwarder.allowance().lease(lease));
            }
            None => self.serving.asked = None,
        }
    }

    /// Looks at the machine, in a task of its own: some batteries take their time to answer.
    pub(super) fn look_at_host(&self) {
        let (host, own) = (self.serving.host.clone(), self.own.clone());
        tokio::task::spawn_blocking(move || {
            // A driver that is busy looks again in a minute.
            drop(own.try_send(Command::Circumstances(host.look())));
        });
    }

    pub(super) fn handle_circumstances(&mut self, circumstances: Circumstances) {
        self.serving.circumstances = circumstances;
        self.see_to_serving();
    }

    /// Writes what was really used of the day: the rest of the last part is free again.
    pub(super) async fn save_day(&self) {
        let now = self.now();
        let (used, ends) =
            self.endpoint.control().with_forwarder(|forwarder| forwarder.allowance().today(now));
        if let Err(error) = self.disk.write_served(used, unix_now() + (ends - now)).await {
            warn!(%error, "what was served is not counted on disk");
        }
    }

    pub(super) fn serve_status(&self) -> ServeStatus {
        let now = self.now();
        let (bytes_today, ends) =
            self.endpoint.control().with_forwarder(|forwarder| forwarder.allowance().today(now));
        ServeStatus {
            limits: self.serving.limits.clone(),
            pause: self.serving.pause,
            bytes_today,
            day_left: ends - now,
            answer_bytes: self.serving.answer_bytes,
        }
    }
}
