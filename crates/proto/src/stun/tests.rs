use std::net::Ipv4Addr;

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

/// Cookie and transaction of the vectors of RFC 5769.
const KEY: &str = "2112a442b7e7a701bc34d686fa87dfae";

/// RFC 5769 §2.1: an ICE check with SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME,
/// MESSAGE-INTEGRITY and FINGERPRINT.
const RFC5769_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
    802200105354554e207465737420636c69656e74\
    002400046e0001ff\
    80290008932ff9b151263b36\
    000600096576746a3a68367659202020\
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
    80280004e57a3bcf";

/// RFC 5769 §2.2 and §2.3: the XOR-MAPPED-ADDRESS of 192.0.2.1:32853 and of
/// [2001:db8:1234:5678:11:2233:4455:6677]:32853.
const RFC5769_V4: &str = "002000080001a147e112a643";
const RFC5769_V6: &str = "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9";

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// A binding request of these attributes, with the length filled in.
fn request(attributes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(attributes.len()).unwrap();
    let mut bytes = vec![0, 1];
    bytes.extend(len.to_be_bytes());
    bytes.extend(hex(KEY));
    bytes.extend(attributes);
    bytes
}

/// Appends a right fingerprint.
fn sign(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(bytes.len() - HEADER_LEN + 8).unwrap();
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let print = crc32(&bytes) ^ FINGERPRINT_XOR;
    bytes.extend([0x80, 0x28, 0, 4]);
    bytes.extend(print.to_be_bytes());
    bytes
}

fn v4() -> SocketAddr {
    "192.0.2.1:32853".parse().unwrap()
}

/// `expect`: the reply in hexadecimal, or nothing.
fn check(datagram: &[u8], from: &str, expect: Option<&str>) {
    let reply = handle(datagram, from.parse().unwrap());
    assert_eq!(reply.map(|r| HEXLOWER.encode(&r)), expect.map(str::to_owned));
}

#[test]
fn crc_has_the_published_check_value() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn a_bare_request_gets_the_address_of_rfc_5769() {
    let bare = request(&[]);
    let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
    let v4_reply = format!("0101000c{KEY}{RFC5769_V4}");
    check(&bare, "192.0.2.1:32853", Some(&v4_reply));
    check(&bare, "[::ffff:192.0.2.1]:32853", Some(&v4_reply));
    check(&bare, v6, Some(&format!("01010018{KEY}{RFC5769_V6}")));
}

#[test]
fn a_fingerprint_is_verified_and_returned() {
    let signed = sign(request(&[]));
    let reply = handle(&signed, v4()).unwrap();
    // The same octets as RFC 5769 §2.2 up to the attributes that we leave out.
    assert_eq!(HEXLOWER.encode(&reply[..32]), format!("01010014{KEY}{RFC5769_V4}"));
    let print = crc32(&reply[..32]) ^ FINGERPRINT_XOR;
    assert_eq!(reply[32..36], [0x80, 0x28, 0, 4]);
    assert_eq!(reply[36..], print.to_be_bytes());

    // With another type (bytes 20 and 21) it would not be a fingerprint.
    for bit in (0..20 * 8).chain(22 * 8..signed.len() * 8) {
        let mut wrong = signed.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(handle(&wrong, v4()), None, "bit {bit}");
    }
}

#[test]
fn the_fingerprint_is_the_last_attribute() {
    let mut after = sign(request(&[]));
    after.extend([0x80, 0x22, 0, 0]);
    after[3] += 4;
    // Over the longer length the fingerprint is wrong; make it right for that length.
    let print = crc32(&after[..HEADER_LEN]) ^ FINGERPRINT_XOR;
    after[24..28].copy_from_slice(&print.to_be_bytes());
    assert_eq!(handle(&after, v4()), None);
}

#[test]
fn the_rfc_5769_ice_check_is_refused_for_its_priority() {
    let request = hex(RFC5769_REQUEST);
    let reply = handle(&request, v4()).unwrap();
    // 420, and PRIORITY (0x0024) is what was not understood; ICE-CONTROLLED is optional.
    let body = format!("01110018{KEY}0009000400000414000a000200240000");
    assert_eq!(HEXLOWER.encode(&reply[..36]), body);
    assert_eq!(reply.len(), 44);
    assert!(reply.len() <= request.len());
}

#[test]
fn an_error_larger_than_the_request_is_not_sent() {
    // CHANGE-REQUEST of RFC 5780: 28 bytes, and the error would have 36.
    let change = hex("0003000400000006");
    check(&request(&change), "192.0.2.1:1", None);
    // The same with eight bytes of SOFTWARE is large enough.
    let padded = [change, hex("80220004746573740000")[..8].to_vec()].concat();
    let expect = format!("01110010{KEY}0009000400000414000a000200030000");
    check(&request(&padded), "192.0.2.1:1", Some(&expect));
}

#[test]
fn an_error_names_sixteen_attributes_at_most() {
    let many: Vec<u8> = (0..100_u16).flat_map(|i| (0x4000 + i).to_be_bytes()).collect();
    let attributes: Vec<u8> = many.chunks(2).flat_map(|kind| [kind[0], kind[1], 0, 0]).collect();
    let reply = handle(&sign(request(&attributes)), v4()).unwrap();
    assert_eq!(reply.len(), REPLY_LEN_MAX);
    assert_eq!(reply[28..32], [0, 0x0a, 0, 32]);
    assert_eq!(reply[62..64], [0x40, 0x0f]);
}

#[test]
fn known_attributes_and_those_after_the_integrity_are_ignored() {
    let username = "0006000361626300";
    let integrity = format!("00080014{}", "00".repeat(20));
    let priority = "002400046e0001ff";
    let expect = format!("0101000c{KEY}{RFC5769_V4}");
    let attributes = hex(&format!("{username}{integrity}{priority}"));
    check(&request(&attributes), "192.0.2.1:32853", Some(&expect));
}

#[test]
fn what_is_no_binding_request_is_dropped() {
    let good = request(&[]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut trailing = good.clone();
    trailing.push(0);
    let cases = [
        with(0, 0x01),                     // a success response
        with(1, 0x11),                     // an indication
        with(1, 0x03),                     // the method Allocate
        with(3, 4),                        // announces an attribute that is not there
        with(4, 0x20),                     // another cookie
        trailing,                          // more than it announces
        good[..19].to_vec(),               // cut short
        request(&[0; 3]),                  // attributes are multiples of four
        request(&hex("80220008")),         // value cut short
        request(&hex("8028000200000000")), // a fingerprint has four bytes
        Vec::new(),
    ];
    for bytes in cases {
        assert_eq!(handle(&bytes, v4()), None, "{}", HEXLOWER.encode(&bytes));
    }
}

#[test]
fn stun_is_told_by_type_and_cookie() {
    let good = request(&[]);
    assert!(looks_like_stun(&good));
    assert!(!looks_like_stun(&good[..19]));
    assert!(!looks_like_stun(&[&[4], &good[1..]].concat()));
    assert!(!looks_like_stun(&[0; 20]));
}

/// Undoes §14.2 as a client would.
fn mapped(reply: &[u8]) -> SocketAddr {
    let key = hex(KEY);
    let clear: Vec<u8> = reply[28..].iter().zip(&key).map(|(a, b)| a ^ b).collect();
    let port = u16::from_be_bytes([reply[26] ^ key[0], reply[27] ^ key[1]]);
    let ip = match reply[25] {
        1 => IpAddr::from(<[u8; 4]>::try_from(clear).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(clear).unwrap()),
    };
    (ip, port).into()
}

proptest! {
    #[test]
    fn any_address_comes_back(ip: IpAddr, port: u16) {
        let reply = handle(&request(&[]), (ip, port).into()).unwrap();
        prop_assert_eq!(mapped(&reply), (ip.to_canonical(), port).into());
    }

    #[test]
    fn any_ipv4_in_ipv6_form_comes_back_as_ipv4(ip: Ipv4Addr, port: u16) {
        let from = (ip.to_ipv6_mapped(), port).into();
        prop_assert_eq!(mapped(&handle(&request(&[]), from).unwrap()), (ip, port).into());
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let _ = handle(&bytes, v4());
    }

    #[test]
    fn garbage_attributes_never_panic_nor_amplify(
        attributes in prop::collection::vec((0..0x30_u16, 0..9_u16, any::<[u8; 12]>()), 0..9),
        cut in 0..400_usize,
    ) {
        let mut body = Vec::new();
        for (kind, len, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend(len.to_be_bytes());
            body.extend(&value[..usize::from(len.next_multiple_of(4))]);
        }
        body.truncate(cut);
        let datagram = request(&body);
        if let Some(reply) = handle(&datagram, v4()) {
            prop_assert!(reply.len() <= datagram.len() + 12);
            prop_assert!(reply[1] == 0x01 || reply.len() <= datagram.len());
        }
    }
}
