//! Memory of the host that stays in place, which a GPU reads and writes by itself.

use crate::Result;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{result, CudaEvent, CudaStream, DriverError};
use candle_core::cuda_backend::WrapErr;
use candle_core::CudaDevice;
use std::ptr::NonNull;
use std::sync::Arc;

/// For some f32. Copies from and to it take their turn in the stream of a device.
pub struct Pinned {
    first: NonNull<f32>,
    len: usize,
    stream: Arc<CudaStream>,
    /// Recorded behind each copy. cudarc's own type for such memory records nothing on a device without its tracking of events.
    done: CudaEvent,
}

// SAFETY: the memory is this value's alone, apart from copies under way, behind which `done` is.
unsafe impl Send for Pinned {}

impl Pinned {
    pub fn new(device: &CudaDevice, len: usize) -> std::result::Result<Self, DriverError> {
        let stream = device.cuda_stream();
        // The thread sleeps while it waits.
        let done = stream.context().new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
        // SAFETY: the context is bound to this thread since the line above; the numbers are set before anyone reads them, so that
        // what is read too early is none. Without flags the memory is cached, for the host reads it.
        let first = unsafe {
            let first: *mut f32 = result::malloc_host(len * size_of::<f32>(), 0)?.cast();
            std::slice::from_raw_parts_mut(first, len).fill(f32::NAN);
            NonNull::new_unchecked(first)
        };
        Ok(Pinned { first, len, stream, done })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Begins to copy as many f32 from a device's address.
    ///
    /// # Safety
    /// They are a tensor's, whose memory is given back in the order of the stream.
    pub unsafe fn fetch(&mut self, from: u64) -> Result<()> {
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: the caller's; nobody reads or writes here before `done`.
        unsafe {
            let to = std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len);
            result::memcpy_dtoh_async(to, from, self.stream.cu_stream()).w()?;
        }
        Ok(self.done.record(&self.stream).w()?)
    }

    /// The numbers, when everything that was begun with them is done.
    pub fn numbers(&mut self) -> Result<&mut [f32]> {
        self.done.synchronize().w()?;
        // SAFETY: this value's memory, all of it set, and no copy is under way.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) })
    }

    /// Begins to copy the first `bytes` to a device's address.
    ///
    /// # Safety
    /// So many are a tensor's there, whose memory is given back in the order of the stream.
    pub unsafe fn send(&mut self, to: u64, bytes: usize) -> Result<()> {
        assert!(bytes <= self.len * size_of::<f32>());
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: the caller's; nobody writes here before `done` but the GPU, which keeps the order.
        unsafe {
            let from = std::slice::from_raw_parts(self.first.as_ptr().cast::<u8>(), bytes);
            result::memcpy_htod_async(to, from, self.stream.cu_stream()).w()?;
        }
        Ok(self.done.record(&self.stream).w()?)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // If there is no waiting for a copy, its memory must stay.
        if self.done.synchronize().is_ok() {
            // SAFETY: it came from malloc_host, and no copy is under way.
            let _ = unsafe { result::free_host(self.first.as_ptr().cast()) };
        }
    }
}
