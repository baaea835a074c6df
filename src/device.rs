//! Which device and number format a model runs in.

use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::Serialize;

#[cfg(feature = "cuda")]
mod cuda;
pub(crate) mod kernel;
pub(crate) mod landing;
pub(crate) mod memory;
#[cfg(feature = "cuda")]
mod pinned;
#[cfg(test)]
pub(crate) mod twin;

/// A device of this machine that this build can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// What to open it as.
    pub name: String,
    /// What its maker calls it; not known for the CPU.
    pub hardware: Option<String>,
    /// Memory it has, if that is known.
    pub memory_bytes: Option<u64>,
    /// Memory that this process could still have, if that is known: on the CPU without swapping, and within the limits of the
    /// process and of the control groups around it.
    pub memory_free_bytes: Option<u64>,
}

/// The devices that models can be opened on, the CPU first. GPUs are asked for their free memory, which takes a fraction of a
/// second for each the first time.
pub fn devices() -> Vec<Description> {
    let (memory_bytes, memory_free_bytes) = (host_memory(), memory::free());
    let cpu = Description { name: "cpu".into(), hardware: None, memory_bytes, memory_free_bytes };
    #[cfg(feature = "cuda")]
    return std::iter::once(cpu).chain(cuda::devices()).collect();
    #[cfg(not(feature = "cuda"))]
    return vec![cpu];
}

/// Memory that a device could still give, if that is known.
pub fn free_memory(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => memory::free(),
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => cuda::free_memory(gpu),
        _ => None,
    }
}

/// A tensor's numbers in the memory of the host, all there: a copy from a GPU may still be under way when the call comes back.
pub fn to_host(t: &Tensor) -> Result<Tensor> {
    let host = t.to_device(&Device::Cpu)?;
    t.device().synchronize()?;
    Ok(host)
}

/// At its end what was taken on a device and is not held any more goes to others.
pub struct GivesBack(pub Device);

impl Drop for GivesBack {
    fn drop(&mut self) {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(gpu) = &self.0 {
            cuda::give_back(gpu);
        }
    }
}

#[cfg(unix)]
fn host_memory() -> Option<u64> {
    // SAFETY: sysconf reads constants of the system and has no preconditions.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).ok()?.checked_mul(u64::try_from(size).ok()?)
}

#[cfg(not(unix))]
fn host_memory() -> Option<u64> {
    None
}

/// What a device's name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// The first GPU that works, else the CPU.
    Auto,
    Cpu,
    Cuda(usize),
}

/// Reads `auto`, `cpu`, `cuda` or `cuda:N`.
pub fn parse_device(name: &str) -> Result<DeviceName> {
    let parsed = match name {
        "auto" => Some(DeviceName::Auto),
        "cpu" => Some(DeviceName::Cpu),
        "cuda" => Some(DeviceName::Cuda(0)),
        _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()).map(DeviceName::Cuda),
    };
    parsed.ok_or_else(|| Error::invalid("device", format!("\"{name}\" is not one of auto, cpu, cuda, cuda:N")))
}

/// Opens a device by name, see [`parse_device`]. [`Error::NotSupported`] for CUDA if this build has none or the machine lacks
/// the driver or a library; [`Error::Device`] if there is no such GPU, or it cannot be used.
pub fn open_device(name: &str) -> Result<Device> {
    match parse_device(name)? {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Cuda(index) => open_cuda(index),
        DeviceName::Auto if !cfg!(feature = "cuda") => Ok(Device::Cpu),
        DeviceName::Auto => open_cuda(0).or_else(|e| {
            log::warn!("running on the CPU: {e}");
            Ok(Device::Cpu)
        }),
    }
}

#[cfg(feature = "cuda")]
use cuda::open as open_cuda;

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize) -> Result<Device> {
    let message = "this library was built without CUDA; rebuild it with `--features cuda`, or use device cpu";
    Err(Error::NotSupported { message: message.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_checked() {
        assert!(open_device("cpu").unwrap().is_cpu());
        assert!(matches!(open_device("tpu"), Err(Error::InvalidArgument { .. })));
        assert!(matches!(open_device("cuda:x"), Err(Error::InvalidArgument { .. })));
    }

    #[test]
    fn the_cpu_is_always_listed_and_opens_by_its_name() {
        let cpu = &devices()[0];
        assert!(open_device(&cpu.name).unwrap().is_cpu());
        assert!(!cfg!(unix) || cpu.memory_bytes.unwrap() > 1 << 26);
        if cfg!(target_os = "linux") {
            let free = cpu.memory_free_bytes.unwrap();
            assert!(1 << 20 < free && free <= cpu.memory_bytes.unwrap());
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_without_cuda_is_refused_with_the_remedy() {
        let error = open_device("cuda:1").unwrap_err();
        assert!(matches!(error, Error::NotSupported { .. }) && error.to_string().contains("--features cuda"));
        assert!(open_device("auto").unwrap().is_cpu());
    }
}
