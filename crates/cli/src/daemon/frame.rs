//! Frames of a pipe: bytes, the end of them, and the word that they were written out.
//!
//! A pipe is two directions of bytes, each with its own end. What QUIC acknowledges has reached the
//! peer's system, not its reader; so the reader's side says [`Kind::Done`] after the last byte is
//! written to its standard output. Frames go from client to client: nodes between them pass them
//! on, so the word holds for the whole way.
//!
//! ```text
//! kind: 1 byte | length of what follows: 3 bytes, big-endian | payload
//! ```
//!
//! Each side sends any number of `Data`, then one `End`; and one `Done` after the other side's
//! `End`; or one `Failed` at any time, after which nothing counts. `Lost` comes only from the
//! client's own node.

use std::io::{self, ErrorKind};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Length of kind and length.
pub(crate) const HEAD_LEN: usize = 4;
/// Longest payload, that of data. With the head it fills what a pipe of the system holds.
pub(crate) const DATA_LEN_MAX: usize = 64 * 1024 - HEAD_LEN;
/// Longest text of a failure.
const TEXT_LEN_MAX: usize = 1_024;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes, at least one.
    Data,
    /// No more bytes come.
    End,
    /// All bytes that the other side sent are written out.
    Done,
    /// The peer gave up, for the reason in the payload.
    Failed,
    /// The connection to the peer broke, for the reason in the payload.
    Lost,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        let kinds = [Self::Data, Self::End, Self::Done, Self::Failed, Self::Lost];
        kinds.into_iter().find(|kind| kind.to_byte() == byte)
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::End => 1,
            Self::Done => 2,
            Self::Failed => 3,
            Self::Lost => 4,
        }
    }

    fn accepts(self, len: usize) -> bool {
        match self {
            Self::Data => (1..=DATA_LEN_MAX).contains(&len),
            Self::End | Self::Done => len == 0,
            Self::Failed | Self::Lost => len <= TEXT_LEN_MAX,
        }
    }
}

/// A frame as it came, whole and valid.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// What it says.
    pub(crate) kind: Kind,
    /// Head and payload, to be passed on.
    pub(crate) bytes: Bytes,
}

impl Frame {
    /// A frame without bytes, or with a reason that is cut to 1 KiB.
    pub(crate) fn new(kind: Kind, text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(TEXT_LEN_MAX)];
        let mut bytes = BytesMut::with_capacity(HEAD_LEN + text.len());
        bytes.put_slice(&head(kind, text.len()));
        bytes.put_slice(text.as_bytes());
        Self { kind, bytes: bytes.freeze() }
    }

    /// The bytes that it carries.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[HEAD_LEN..]
    }

    /// The reason that it carries.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.payload()).into_owned()
    }
}

/// The head of a frame with a payload of `len` bytes.
pub(crate) fn head(kind: Kind, len: usize) -> [u8; HEAD_LEN] {
    debug_assert!(kind.accepts(len), "{kind:?} of {len} bytes");
    let word = u32::try_from(len).expect("a payload has less than 64 KiB");
    (word | u32::from(kind.to_byte()) << 24).to_be_bytes()
}

/// Reads frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `from`, which is at the beginning of a frame.
    pub(crate) fn new(from: R) -> Self {
        Self { from, buffer: BytesMut::new() }
    }

    /// The next frame; `None` if the other side ended between two frames. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the connection breaks or ends inside of a frame, or what comes is no frame.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let missing = match self.parse()? {
                Ok(frame) => return Ok(Some(frame)),
                Err(missing) => missing,
            };
            // Reads ahead what fits: small frames come in numbers.
            self.buffer.reserve(missing.max(DATA_LEN_MAX + HEAD_LEN - self.buffer.len()));
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The first frame in the buffer, or how many bytes it lacks.
    fn parse(&mut self) -> io::Result<Result<Frame, usize>> {
        let Some(head) = self.buffer.first_chunk::<HEAD_LEN>() else {
            return Ok(Err(HEAD_LEN - self.buffer.len()));
        };
        let len = (&head[1..]).get_uint(3);
        let len = usize::try_from(len).expect("24 bits");
        let kind = Kind::from_byte(head[0]).filter(|kind| kind.accepts(len));
        let Some(kind) = kind else {
            return Err(io::Error::new(ErrorKind::InvalidData, "that is not baran's pipe"));
        };
        let whole = HEAD_LEN + len;
        if self.buffer.len() < whole {
            return Ok(Err(whole - self.buffer.len()));
        }
        Ok(Ok(Frame { kind, bytes: self.buffer.split_to(whole).freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(len: usize) -> Vec<u8> {
        [&head(Kind::Data, len)[..], &vec![b'x'; len]].concat()
    }

    #[tokio::test]
    async fn frames_come_as_they_were_sent_however_they_are_cut() {
        let frames = [
            data(1),
            Frame::new(Kind::End, "").bytes.to_vec(),
            data(DATA_LEN_MAX),
            Frame::new(Kind::Failed, &"é".repeat(600)).bytes.to_vec(),
            Frame::new(Kind::Done, "").bytes.to_vec(),
        ];
        for step in [1, 3, 4096, 1 << 20] {
            let (mut to, from) = tokio::io::duplex(step);
            let all = frames.concat();
            let writer = tokio::spawn(async move {
                tokio::io::AsyncWriteExt::write_all(&mut to, &all).await.unwrap();
            });
            let mut reader = FrameReader::new(from);
            for frame in &frames {
                assert_eq!(reader.next().await.unwrap().unwrap().bytes, frame[..]);
            }
            assert!(reader.next().await.unwrap().is_none());
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let too_long = u32::try_from(DATA_LEN_MAX + 1).unwrap().to_be_bytes();
        for wrong in [
            &[0, 0, 0, 0][..],
            &too_long,
            &[1, 0, 0, 1, 7],
            &[3, 0xff, 0xff, 0xff],
            &[5, 0, 0, 0],
            b"GET / HTTP/1.1\r\n",
        ] {
            let error = FrameReader::new(wrong).next().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{wrong:?}");
        }
        for short in [&[0][..], &[0, 0, 0, 2, 7]] {
            let error = FrameReader::new(short).next().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{short:?}");
        }
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let frame = Frame::new(Kind::Failed, &format!("a{}", "é".repeat(600)));
        assert_eq!(frame.payload().len(), 1_023);
        assert!(frame.text().ends_with('é'));
    }
}
