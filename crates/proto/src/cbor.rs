//! A value that is kept in the form in which it travels.
//!
//! Lists of addresses take three to five times the memory of their CBOR. What there are hundreds of
//! and is looked at seldom is kept so.

use core::marker::PhantomData;

use minicbor::{Decode, Encode};

/// A value as CBOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cbor<T> {
    bytes: Box<[u8]>,
    of: PhantomData<T>,
}

impl<T: Encode<()> + for<'b> Decode<'b, ()>> Cbor<T> {
    pub(crate) fn new(value: &T) -> Self {
        let bytes = minicbor::to_vec(value).expect("writing to memory does not fail");
        Self { bytes: bytes.into_boxed_slice(), of: PhantomData }
    }

    /// The value, decoded by each call. `None` if it is one that can be written and not read, of
    /// which the messages have none.
    pub(crate) fn get(&self) -> Option<T> {
        minicbor::decode(&self.bytes).ok()
    }
}
