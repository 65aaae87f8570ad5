//! Sorting of buffers that the kernel merged from datagrams of several kinds.

use baran_proto::frame::write_header;
use proptest::prelude::*;

use super::*;
use crate::socket::testing::bind;
use crate::socket::{Socket, SocketControl};

const RELAY: &str = "[::ffff:127.0.0.9]:9";

fn relay() -> SocketAddr {
    RELAY.parse().unwrap()
}

fn frame(channel: Channel, len: usize, fill: u8) -> Vec<u8> {
    let mut datagram = vec![fill | 0x40; len];
    let mut header = [0; HEADER_LEN];
    write_header(&mut header, channel);
    datagram[..HEADER_LEN].copy_from_slice(&header);
    datagram
}

/// Sorts one buffer from `from` with room for `slots` of them.
fn sort(socket: &mut Socket, from: SocketAddr, stride: usize, data: &[u8], slots: usize) -> Got {
    let mut memory = vec![vec![0; 65_536]; slots];
    memory[0][..data.len()].copy_from_slice(data);
    let mut bufs: Vec<_> = memory.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
    let mut metas = vec![RecvMeta::default(); slots];
    (metas[0].addr, metas[0].len, metas[0].stride) = (from, data.len(), stride);
    metas[0].dst_ip = Some("127.0.0.1".parse().unwrap());
    let bound = &socket.shared.bound[0];
    let kept = socket.receiver.sort(&socket.shared, bound, &mut bufs, &mut metas, 1);
    let group = |(meta, buf): (&RecvMeta, &IoSliceMut<'_>)| (*meta, buf[..meta.len].to_vec());
    metas.iter().zip(&bufs).take(kept).map(group).collect()
}

type Got = Vec<(RecvMeta, Vec<u8>)>;

fn socket() -> (Socket, SocketControl) {
    bind(&["127.0.0.1:0"])
}

#[tokio::test]
async fn a_mixed_buffer_is_taken_apart_by_path() {
    let (mut socket, control) = socket();
    let first = control.add_relayed(relay(), Channel(1));
    let second = control.add_relayed(relay(), Channel(2));
    let data = [
        vec![0x41; 60],
        frame(Channel(1), 60, 1),
        vec![0x80; 60],
        frame(Channel(2), 60, 2),
        vec![0x42; 60],
        frame(Channel(1), 40, 3),
    ]
    .concat();
    let got = sort(&mut socket, relay(), 60, &data, 4);
    let paths: Vec<_> = got.iter().map(|(m, _)| (m.addr, m.stride, m.dst_ip.is_some())).collect();
    assert_eq!(paths, [(relay(), 60, true), (first, 55, false), (second, 55, false)]);
    assert_eq!(got[0].1, [[0x41; 60], [0x42; 60]].concat());
    assert_eq!(got[1].1, [&[0x41; 55][..], &[0x43; 35]].concat());
    assert_eq!(got[2].1, [0x42; 55]);
    assert_eq!(control.stats().unknown_dropped, 1);
}

#[tokio::test]
async fn a_source_inside_the_mapped_block_is_dropped() {
    let (mut socket, control) = socket();
    let forged = control.add_relayed(relay(), Channel(1));
    assert!(sort(&mut socket, forged, 60, &[0x41; 120], 4).is_empty());
    assert_eq!(control.stats().spoofed_dropped, 2);
}

#[tokio::test]
async fn nothing_comes_of_empty_datagrams_and_foreign_frames() {
    let (mut socket, control) = socket();
    assert!(sort(&mut socket, relay(), 0, &[], 4).is_empty());
    let frames = [frame(Channel(1), 60, 1), frame(Channel(1), 60, 2)].concat();
    assert!(sort(&mut socket, relay(), 60, &frames, 4).is_empty());
    let stats = control.stats();
    assert_eq!((stats.unknown_dropped, stats.frames_refused), (1, 2));
}

#[tokio::test]
async fn what_finds_no_room_waits_and_is_bounded() {
    let (mut socket, control) = socket();
    let channels = 70;
    let mapped: Vec<_> = (0..channels).map(|n| control.add_relayed(relay(), Channel(n))).collect();
    let data: Vec<u8> = (0..channels).flat_map(|n| frame(Channel(n), 60, 0)).collect();
    let mut got = sort(&mut socket, relay(), 60, &data, 1);
    assert_eq!(control.stats().overflow_dropped, 5);
    while !socket.receiver.overflow.is_empty() {
        let mut memory = vec![0; 100];
        let mut bufs = [IoSliceMut::new(&mut memory)];
        let mut metas = [RecvMeta::default()];
        let filled = socket.receiver.place_overflow(&socket.shared, &mut bufs, &mut metas, 0);
        assert_eq!(filled, 1);
        got.push((metas[0], bufs[0][..metas[0].len].to_vec()));
    }
    let paths: Vec<_> = got.iter().map(|(meta, _)| meta.addr).collect();
    assert_eq!(paths, mapped[..65]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every datagram for QUIC comes out once, whole, in order within its path; nothing else does.
    #[test]
    fn no_datagram_for_quic_is_lost_or_changed(
        kinds in prop::collection::vec(0_u8..6, 1..60),
        stride in 26_usize..1_000,
        last in 0_usize..1_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let (mut socket, control) = socket();
        let mapped = [1, 2, 3].map(|n| control.add_relayed(relay(), Channel(n)));
        let paths = [relay(), mapped[0], mapped[1], mapped[2]];
        let mut expect = vec![Vec::new(); paths.len()];
        let mut data = Vec::new();
        for (i, kind) in kinds.iter().enumerate() {
            let len = if i + 1 == kinds.len() { last % stride + 1 } else { stride };
            let fill = u8::try_from(i).unwrap();
            let datagram = match kind {
                0 => vec![fill | 0x40; len],
                n @ 1..=3 if len >= HEADER_LEN + INNER_LEN_MIN => {
                    frame(Channel(u32::from(*n)), len, fill)
                }
                _ => vec![0x90; len],
            };
            let path = usize::from(*kind);
            if datagram[0] == 0x20 {
                expect[path].push(datagram[HEADER_LEN..].to_vec());
            } else if datagram[0] != 0x90 {
                expect[path].push(datagram.clone());
            }
            data.extend(datagram);
        }
        let mut got = vec![Vec::new(); paths.len()];
        for (meta, bytes) in sort(&mut socket, relay(), stride, &data, 8) {
            let path = paths.iter().position(|path| *path == meta.addr).unwrap();
            got[path].extend(bytes.chunks(meta.stride).map(<[u8]>::to_vec));
        }
        prop_assert_eq!(got, expect);
    }

    #[test]
    fn garbage_never_panics(
        data in prop::collection::vec(any::<u8>(), 0..2_000),
        stride in 0_usize..300,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let (mut socket, control) = socket();
        control.set_inbound_relay(relay(), true);
        sort(&mut socket, relay(), stride, &data, 2);
    }
}
