//! Opaque handles. Each starts with a tag that says what it is, so that a host that mixes up two `void *` is told so
//! instead of corrupting memory. Best effort: memory that was freed and used again cannot be recognised.

use super::failure::Failure;
use super::status::*;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A kind of handle. The implementing type is what the header shows and has no content.
pub trait Noun: Sized {
    /// The name in the header.
    const NAME: &'static str;
    /// What the handle holds: an `Arc` of it, so that a call keeps it alive whatever the host frees meanwhile.
    type Value: Clone + Send + Sync + 'static;
}

#[repr(C)]
struct Handle<V> {
    tag: AtomicU64,
    pid: u32,
    references: AtomicUsize,
    value: V,
}

/// FNV-1a of the name: differs between the kinds, and is no plausible pointer or count.
const fn tag<N: Noun>() -> u64 {
    let bytes = N::NAME.as_bytes();
    let (mut hash, mut i) = (0xcbf2_9ce4_8422_2325u64, 0);
    while i < bytes.len() {
        #[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
        {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
            i += 1;
        }
    }
    hash
}

/// What a freed handle's tag is set to before its memory goes.
const FREED: u64 = 0x6465_6572_6673_6974;

fn checked<'a, N: Noun>(pointer: *const N) -> Result<&'a Handle<N::Value>, Failure> {
    if pointer.is_null() {
        return Err(Failure::null(N::NAME));
    }
    let wrong = |found: &str| Failure::new(SITTER_E_WRONG_HANDLE, format!("expected a {}, found {found}", N::NAME));
    if !pointer.cast::<u64>().is_aligned() {
        return Err(wrong("a pointer that no handle can have"));
    }
    // SAFETY: the host promises a pointer that one of our constructors gave; all handles begin with an atomic u64.
    let found = unsafe { &*pointer.cast::<AtomicU64>() }.load(Ordering::Relaxed);
    match found {
        f if f == tag::<N>() => {}
        FREED => return Err(wrong("one that was freed")),
        _ => return Err(wrong("another kind of handle")),
    }
    // SAFETY: the tag says that this is a handle of this noun, and the host that it has not been freed.
    let handle = unsafe { &*pointer.cast::<Handle<N::Value>>() };
    if handle.pid != std::process::id() {
        let message = "the object belongs to the process that this one was forked from; open it again in this process";
        return Err(Failure::new(SITTER_E_FORKED, message));
    }
    Ok(handle)
}

/// A new handle with one reference.
pub fn new<N: Noun>(value: N::Value) -> *mut N {
    let handle =
        Handle { tag: AtomicU64::new(tag::<N>()), pid: std::process::id(), references: AtomicUsize::new(1), value };
    Box::into_raw(Box::new(handle)).cast()
}

/// What the handle holds.
pub fn get<N: Noun>(pointer: *const N) -> Result<N::Value, Failure> {
    checked(pointer).map(|h| h.value.clone())
}

/// What the handle holds, or None for NULL.
pub fn get_optional<N: Noun>(pointer: *const N) -> Result<Option<N::Value>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    get(pointer).map(Some)
}

/// As [`get`], for values that C is to point into; valid until the handle is freed.
pub fn peek<'a, N: Noun>(pointer: *const N) -> Option<&'a N::Value> {
    checked(pointer).ok().map(|h| &h.value)
}

/// One more reference; NULL for what is no such handle.
pub fn add_reference<N: Noun>(pointer: *const N) -> *mut N {
    match checked(pointer) {
        Ok(handle) => {
            handle.references.fetch_add(1, Ordering::Relaxed);
            pointer.cast_mut()
        }
        Err(_) => std::ptr::null_mut(),
    }
}

/// One reference less, and the end with the last one. Does nothing for NULL, for another kind of handle, and in a forked
/// child, where what it holds cannot be taken down.
pub fn free<N: Noun>(pointer: *mut N) {
    let Ok(handle) = checked(pointer) else { return };
    if handle.references.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    handle.tag.store(FREED, Ordering::Relaxed);
    // SAFETY: made by `new`, and this was the last reference.
    let handle = unsafe { Box::from_raw(pointer.cast::<Handle<N::Value>>()) };
    // A panic while tearing down must not reach the host; there is nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(handle)));
}
