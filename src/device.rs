//! Which device and number format a model runs in.

use crate::model::weight::Format;
use crate::{Error, Result};
use candle_core::Device;
use serde::Serialize;

/// A device of this machine that this build can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// What to open it as.
    pub name: String,
    /// Memory it has, if that is known.
    pub memory_bytes: Option<u64>,
}

/// The devices that models can be opened on, the CPU first.
pub fn devices() -> Vec<Description> {
    let mut found = vec![Description { name: "cpu".into(), memory_bytes: host_memory() }];
    // A number that no machine reaches; the first that cannot be opened ends the list.
    let gpus = if cfg!(feature = "cuda") { 64 } else { 0 };
    for index in (0..gpus).take_while(|&i| Device::new_cuda(i).is_ok()) {
        found.push(Description { name: format!("cuda:{index}"), memory_bytes: None });
    }
    found
}

/// Memory that a device could still give, if that is known.
pub fn free_memory(device: &Device) -> Option<u64> {
    if !device.is_cpu() {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
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

/// Opens a device by name, see [`parse_device`].
pub fn open_device(name: &str) -> Result<Device> {
    let cuda = |index: usize| {
        Device::new_cuda(index).map_err(|e| Error::Device { message: format!("cannot use CUDA device {index}: {e}") })
    };
    match parse_device(name)? {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Auto if !cfg!(feature = "cuda") => Ok(Device::Cpu),
        DeviceName::Auto => Ok(cuda(0).unwrap_or_else(|e| {
            log::info!("running on the CPU: {e}");
            Device::Cpu
        })),
        DeviceName::Cuda(_) if !cfg!(feature = "cuda") => Err(Error::NotSupported {
            message: "this library was built without CUDA; rebuild it with `--features cuda`, or use device cpu".into(),
        }),
        DeviceName::Cuda(index) => cuda(index),
    }
}

/// The format of the weights by name: `auto`, `f32`, `bf16`, `q8_0` or `q4_k`. `auto` is bf16 on a GPU and f32 on the CPU.
/// Activations are bf16 on a GPU (beside f32 weights f32) and always f32 on the CPU.
///
/// f16 is not offered: activations of the 7B model exceed its range.
pub fn parse_dtype(name: &str, device: &Device) -> Result<Format> {
    match Format::ALL.into_iter().find(|f| f.name() == name) {
        Some(format) => Ok(format),
        None if name == "auto" && device.is_cuda() => Ok(Format::Bf16),
        None if name == "auto" => Ok(Format::F32),
        None => Err(Error::invalid("dtype", format!("\"{name}\" is not one of auto, f32, bf16, q8_0, q4_k"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_and_dtype_names_are_checked() {
        assert!(open_device("cpu").unwrap().is_cpu());
        assert!(matches!(open_device("tpu"), Err(Error::InvalidArgument { .. })));
        assert!(matches!(open_device("cuda:x"), Err(Error::InvalidArgument { .. })));
        assert_eq!(parse_dtype("auto", &Device::Cpu).unwrap(), Format::F32);
        assert!(parse_dtype("f16", &Device::Cpu).is_err());
    }

    #[test]
    fn the_cpu_is_always_listed_and_opens_by_its_name() {
        let cpu = &devices()[0];
        assert!(open_device(&cpu.name).unwrap().is_cpu());
        assert!(!cfg!(unix) || cpu.memory_bytes.unwrap() > 1 << 26);
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_without_cuda_is_refused_with_the_remedy() {
        let error = open_device("cuda:1").unwrap_err();
        assert!(matches!(error, Error::NotSupported { .. }) && error.to_string().contains("--features cuda"));
        assert!(open_device("auto").unwrap().is_cpu());
    }
}
