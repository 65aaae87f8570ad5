//! The receiving half: reads batches, tells the datagrams of each apart, and deals with all that
//! is not for QUIC.
//!
//! The kernel hands over up to 64 datagrams of one source in one buffer (GRO), all of one size
//! but for the last. `noq` wants one source per buffer too. A buffer that holds only QUIC, the
//! common case, is handed up untouched after a look at the first byte of each datagram. In any
//! other buffer the datagrams of the first path found in it are moved together in place, and
//! those of further paths are copied aside; they take the places left in the same batch, or come
//! first in the next.
//!
//! A frame is ours if its (source, channel) is mapped; else the forwarder is asked; else, from a
//! relay registered for it, it opens a path of its own. A node may be the relay of its relay: the
//! numbers of one are nonces to the other, so mixing the two up takes a coincidence of 32 bits,
//! and QUIC then drops what it cannot decrypt.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use baran_proto::egress::canonical;
use baran_proto::forward::Drop as Refusal;
use baran_proto::frame::{self, Channel, DatagramKind, HEADER_LEN, INNER_LEN_MIN};
use baran_proto::stun;
use noq_udp::{RecvMeta, Transmit};
use tokio::io::Interest;

use super::lane::Bound;
use super::mapping::Inbound;
use super::sources::TrustedSources;
use super::{Shared, lock, to_ipv6};

/// Reads per poll that bring nothing for QUIC before other tasks get their turn. A read is at
/// most 32 buffers, hence 256 forwarding sends.
const READS_MAX: usize = 8;

/// Groups of datagrams that may wait for a place, 64 KiB at most each.
const OVERFLOW_MAX: usize = 64;

/// The state of the receiving half; `noq` calls it from one task.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// The socket whose turn it is.
    next: usize,
    overflow: VecDeque<Overflow>,
    trusted: TrustedSources,
}

/// Datagrams of one path that shared a buffer with another's.
#[derive(Debug)]
struct Overflow {
    meta: RecvMeta,
    data: Vec<u8>,
}

impl Receiver {
    /// Fills `bufs` and `metas` with datagrams for QUIC and returns the number of buffers, or
    /// arranges a wake-up.
    pub(super) fn poll(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let filled = self.place_overflow(shared, bufs, metas, 0);
        if filled > 0 {
            return self.ready(cx, filled);
        }
        let sockets = shared.bound.len();
        let mut pending = 0;
        for _ in 0..READS_MAX {
            let Some(index) = self.next_readable(shared, cx, &mut pending) else {
                return Poll::Pending;
            };
            let bound = &shared.bound[index];
            let read = bound.io().try_io(Interest::READABLE, || {
                bound.own.state().recv(bound.io().into(), bufs, metas)
            });
            match read {
                Ok(count) => {
                    self.next = (index + 1) % sockets;
                    let kept = self.sort(shared, bound, bufs, metas, count);
                    if kept > 0 {
                        return self.ready(cx, kept);
                    }
                }
                // Readiness was cleared: the next look at this socket arranges the wake-up.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => shared.counters.recv_errors.add(1),
            }
            pending = 0;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn ready(&self, cx: &Context<'_>, filled: usize) -> Poll<usize> {
        if !self.overflow.is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(filled)
    }

    /// The next socket in turn that may have datagrams; `None` once all of them will wake us.
    fn next_readable(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
        pending: &mut usize,
    ) -> Option<usize> {
        let sockets = shared.bound.len();
        while *pending < sockets {
            let index = self.next;
            match shared.bound[index].io().poll_recv_ready(cx) {
                Poll::Ready(Ok(())) => return Some(index),
                // Only a runtime that shuts down answers so; there is nothing left to wait for.
                Poll::Ready(Err(_)) => shared.counters.recv_errors.add(1),
                Poll::Pending => {}
            }
            *pending += 1;
            self.next = (index + 1) % sockets;
        }
        None
    }

    /// Deals with a batch of `count` buffers; what is for QUIC ends up in the first buffers, the
    /// number of which is returned.
    fn sort(
        &mut self,
        shared: &Shared,
        bound: &Bound,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        count: usize,
    ) -> usize {
        let mut kept = 0;
        for i in 0..count {
            let meta = &mut metas[i];
            meta.addr = to_ipv6(meta.addr);
            meta.stride = meta.stride.clamp(1, meta.len.max(1));
            let datagrams = meta.len.div_ceil(meta.stride);
            let buf = &mut bufs[i][..meta.len];
            if meta.len == 0 {
                shared.counters.unknown_dropped.add(1);
                continue;
            }
            if shared.prefix.contains(meta.addr.ip()) {
                shared.counters.spoofed_dropped.add(datagrams);
                continue;
            }
            if is_all_quic(buf, meta.stride) {
                self.trusted.note(shared, meta.addr, meta.len);
            } else {
                let mut sorter = Sorter::new(shared, bound, buf, *meta, &mut self.overflow);
                sorter.sort();
                let (first, direct_bytes) = (sorter.first, sorter.direct_bytes);
                if direct_bytes > 0 {
                    self.trusted.note(shared, meta.addr, direct_bytes);
                }
                let Some(first) = first else { continue };
                *meta = first;
            }
            if kept != i {
                bufs.swap(kept, i);
                metas.swap(kept, i);
            }
            kept += 1;
        }
        self.place_overflow(shared, bufs, metas, kept)
    }

    /// Puts waiting datagrams into the buffers from `filled` on and returns the new number.
    fn place_overflow(
        &mut self,
        shared: &Shared,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        mut filled: usize,
    ) -> usize {
        for (buf, meta) in bufs.iter_mut().zip(metas).skip(filled) {
            let Some(group) = self.overflow.pop_front() else { break };
            let Some(room) = buf.get_mut(..group.data.len()) else {
                shared.counters.overflow_dropped.add(group.meta.len.div_ceil(group.meta.stride));
                break;
            };
            room.copy_from_slice(&group.data);
            *meta = group.meta;
            filled += 1;
        }
        filled
    }
}

fn is_all_quic(buf: &[u8], stride: usize) -> bool {
    buf.chunks(stride).all(|datagram| frame::classify(datagram) == DatagramKind::Quic)
}

/// One buffer of mixed datagrams at work.
struct Sorter<'a> {
    shared: &'a Shared,
    bound: &'a Bound,
    buf: &'a mut [u8],
    meta: RecvMeta,
    /// The source, canonical.
    from: SocketAddr,
    /// Path, length and stride of what was moved to the start of the buffer.
    first: Option<RecvMeta>,
    /// Bytes of plain QUIC.
    direct_bytes: usize,
    overflow: &'a mut VecDeque<Overflow>,
    /// Where the groups of this buffer begin in `overflow`.
    overflow_start: usize,
}

impl<'a> Sorter<'a> {
    fn new(
        shared: &'a Shared,
        bound: &'a Bound,
        buf: &'a mut [u8],
        meta: RecvMeta,
        overflow: &'a mut VecDeque<Overflow>,
    ) -> Self {
        let from = canonical(meta.addr);
        let overflow_start = overflow.len();
        let (first, direct_bytes) = (None, 0);
        Self { shared, bound, buf, meta, from, first, direct_bytes, overflow, overflow_start }
    }

    fn sort(&mut self) {
        let counters = &self.shared.counters;
        let mut at = 0;
        while at < self.buf.len() {
            let mut end = self.next(at);
            match frame::classify(&self.buf[at..end]) {
                DatagramKind::Quic => {
                    self.direct_bytes += end - at;
                    self.keep(at, end, self.meta);
                }
                DatagramKind::Relay { channel } => {
                    end = self.run_end(at);
                    self.handle_frames(at, end, channel);
                }
                DatagramKind::Stun => self.answer_stun(at, end),
                DatagramKind::Unknown => counters.unknown_dropped.add(1),
            }
            at = end;
        }
    }

    /// Where the datagram that starts at `at` ends.
    fn next(&self, at: usize) -> usize {
        (at + self.meta.stride).min(self.buf.len())
    }

    /// Where the run of frames that starts at `at` and shares its channel ends.
    fn run_end(&self, at: usize) -> usize {
        let header = &self.buf[at..at + HEADER_LEN];
        let is_same =
            |f: &&[u8]| f.len() >= HEADER_LEN + INNER_LEN_MIN && f[..HEADER_LEN] == *header;
        let run = self.buf[at..].chunks(self.meta.stride).take_while(is_same);
        at + run.map(<[u8]>::len).sum::<usize>()
    }

    fn handle_frames(&mut self, at: usize, end: usize, channel: Channel) {
        let shared = self.shared;
        let frames = (end - at).div_ceil(self.meta.stride);
        let mapped = lock(&shared.mappings).find(self.from, channel);
        if let Some(mapped) = mapped {
            return self.keep_frames(at, end, mapped);
        }
        let decision =
            lock(&shared.forwarder).forward(shared.now(), self.from, channel, end - at, frames);
        match decision {
            Ok(hop) => self.forward(at, end, hop.to, hop.channel),
            Err(Refusal::Unknown | Refusal::Foreign) => {
                let inbound = lock(&shared.mappings).inbound(self.from, channel);
                match inbound {
                    Inbound::Mapped { addr, replaced } => {
                        if replaced {
                            shared.bump();
                        }
                        self.keep_frames(at, end, addr);
                    }
                    Inbound::Refused => shared.counters.frames_refused.add(frames),
                }
            }
            Err(Refusal::Expired | Refusal::Rate | Refusal::DayBudget) => {
                shared.counters.frames_refused.add(frames);
            }
        }
    }

    /// Strips the headers of frames for QUIC.
    fn keep_frames(&mut self, at: usize, end: usize, mapped: SocketAddr) {
        let mut meta = self.meta;
        meta.addr = mapped;
        meta.stride -= HEADER_LEN;
        // The address of ours that the relay sent to says nothing about this path.
        meta.dst_ip = None;
        meta.interface_index = None;
        let mut at = at;
        while at < end {
            let next = self.next(at);
            self.shared.counters.frames_received.add(1);
            self.keep(at + HEADER_LEN, next, meta);
            at = next;
        }
    }

    /// Hands a datagram of the path `meta` to QUIC. Never writes past `start`.
    fn keep(&mut self, start: usize, end: usize, mut meta: RecvMeta) {
        let len = end - start;
        match &mut self.first {
            None => {
                self.buf.copy_within(start..end, 0);
                meta.len = len;
                self.first = Some(meta);
            }
            Some(first) if first.addr == meta.addr => {
                self.buf.copy_within(start..end, first.len);
                first.len += len;
            }
            Some(_) => self.set_aside(start, end, meta),
        }
    }

    fn set_aside(&mut self, start: usize, end: usize, mut meta: RecvMeta) {
        let data = &self.buf[start..end];
        let mut groups = self.overflow.iter_mut().skip(self.overflow_start);
        if let Some(group) = groups.find(|group| group.meta.addr == meta.addr) {
            group.data.extend_from_slice(data);
            group.meta.len += data.len();
        } else if self.overflow.len() < OVERFLOW_MAX {
            meta.len = data.len();
            self.overflow.push_back(Overflow { meta, data: data.to_vec() });
        } else {
            self.shared.counters.overflow_dropped.add(1);
        }
    }

    /// Sends a run of frames on, in place.
    fn forward(&mut self, at: usize, end: usize, to: SocketAddr, channel: Channel) {
        let (shared, stride) = (self.shared, self.meta.stride);
        let run = &mut self.buf[at..end];
        let mut header = [0; HEADER_LEN];
        frame::write_header(&mut header, channel);
        for frame in run.chunks_mut(stride) {
            frame[..HEADER_LEN].copy_from_slice(&header);
        }
        let sent = match shared.route(to.ip(), shared.pinned(to)) {
            None => 0,
            Some((index, src_ip)) => {
                let bound = &shared.bound[index];
                let transmit = Transmit {
                    destination: bound.destination(to),
                    // Marks of congestion are for the ends of the inner connection.
                    ecn: self.meta.ecn,
                    contents: run,
                    segment_size: None,
                    src_ip,
                };
                match bound.send_run(&bound.lent, &transmit, stride) {
                    Ok(()) => run.len(),
                    Err((sent, _)) => sent,
                }
            }
        };
        let (sent_frames, frames) = (sent.div_ceil(stride), run.len().div_ceil(stride));
        shared.counters.frames_forwarded.add(sent_frames);
        shared.counters.bytes_forwarded.add(sent);
        shared.counters.forward_dropped.add(frames - sent_frames);
    }

    fn answer_stun(&self, at: usize, end: usize) {
        let counters = &self.shared.counters;
        let Some(reply) = stun::handle(&self.buf[at..end], self.from) else {
            return counters.stun_ignored.add(1);
        };
        if !lock(&self.shared.stun).try_take(self.shared.now(), 1) {
            return counters.stun_limited.add(1);
        }
        let src_ip = self.meta.dst_ip.filter(|_| self.bound.is_wildcard());
        let transmit = Transmit {
            destination: self.bound.destination(self.from),
            ecn: None,
            contents: &reply,
            segment_size: None,
            src_ip: src_ip.map(|ip: IpAddr| ip.to_canonical()),
        };
        match self.bound.try_send(&self.bound.lent, &transmit) {
            Ok(()) => counters.stun_answered.add(1),
            Err(_) => counters.send_errors.add(1),
        }
    }
}

#[cfg(test)]
mod tests;
