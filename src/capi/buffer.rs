//! Arrays from C, results to C.

use super::failure::Failure;
use super::handle::{self, Noun};
use super::status::SITTER_E_BUFFER_TOO_SMALL;

/// A copy of `count` values; `(NULL, 0)` is empty.
pub fn array<T: Copy>(pointer: *const T, count: usize, name: &str) -> Result<Vec<T>, Failure> {
    if count == 0 {
        return Ok(vec![]);
    }
    if pointer.is_null() {
        return Err(Failure::null(name));
    }
    if !pointer.is_aligned() {
        return Err(Failure::invalid(name, "is not aligned for its type"));
    }
    let bytes = count.checked_mul(size_of::<T>()).filter(|&b| b <= isize::MAX as usize);
    if bytes.is_none() {
        return Err(Failure::invalid(name, format!("{count} values do not fit in memory")));
    }
    let mut copy = Vec::new();
    copy.try_reserve_exact(count).map_err(|_| {
        let message = format!("{name}: no memory for {count} values");
        Failure::new(super::status::SITTER_E_RESOURCE_EXHAUSTED, message)
    })?;
    // SAFETY: not NULL, aligned, and the host promises `count` readable values.
    copy.extend_from_slice(unsafe { std::slice::from_raw_parts(pointer, count) });
    Ok(copy)
}

/// `count` handles, none of them NULL.
pub fn handles<N: Noun>(pointer: *const *const N, count: usize, name: &str) -> Result<Vec<N::Value>, Failure> {
    array(pointer, count, name)?.into_iter().map(handle::get).collect()
}

/// Where a result goes. Made before anything else is looked at.
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// A place for a number; untouched on failure.
    pub fn value(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        match pointer.is_null() {
            true => Err(Failure::null(name)),
            false if !pointer.is_aligned() => Err(Failure::invalid(name, "is not aligned for its type")),
            false => Ok(Out(pointer)),
        }
    }

    pub fn set(self, value: T) {
        // SAFETY: not NULL, aligned, and the host promises that it can be written to.
        unsafe { self.0.write(value) };
    }
}

impl<N: Noun> Out<*mut N> {
    /// A place for a handle: NULL from now on, until there is one.
    pub fn handle(pointer: *mut *mut N, name: &str) -> Result<Self, Failure> {
        let out = Out::value(pointer, name)?;
        // SAFETY: as in `set`.
        unsafe { pointer.write(std::ptr::null_mut()) };
        Ok(out)
    }
}

/// Whether `count` values are to be written, in the two-call form: `(NULL, 0)` asks for the size, a smaller buffer is an error.
/// `needed` may be NULL when there is a buffer.
pub fn room_for<T>(count: usize, to: *mut T, capacity: usize, needed: *mut usize) -> Result<bool, Failure> {
    if needed.is_null() && to.is_null() {
        return Err(Failure::null("needed"));
    }
    if !needed.is_null() {
        Out::value(needed, "needed")?.set(count);
    }
    if to.is_null() && capacity == 0 {
        return Ok(false);
    }
    if to.is_null() {
        return Err(Failure::null("buffer"));
    }
    if !to.is_aligned() {
        return Err(Failure::invalid("buffer", "is not aligned for its type"));
    }
    if capacity < count {
        let message = format!("the buffer holds {capacity} elements; {count} are needed");
        return Err(Failure::new(SITTER_E_BUFFER_TOO_SMALL, message));
    }
    Ok(true)
}

/// Copies `values` out as [`room_for`] says; a buffer that is too small is left as it is.
pub fn copy_out<T: Copy>(values: &[T], to: *mut T, capacity: usize, needed: *mut usize) -> Result<(), Failure> {
    if room_for(values.len(), to, capacity, needed)? {
        // SAFETY: the host promises `capacity` writable elements, which are enough; its buffer is not ours.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len()) };
    }
    Ok(())
}

/// Copies text out with its NUL, as [`copy_out`].
pub fn copy_text(text: &str, to: *mut std::ffi::c_char, capacity: usize, needed: *mut usize) -> Result<(), Failure> {
    let mut bytes: Vec<u8> = text.bytes().filter(|&b| b != 0).collect();
    bytes.push(0);
    copy_out(&bytes, to.cast(), capacity, needed)
}
