//! Which device and number format a model runs in.

use crate::{Error, Result};
use candle_core::{DType, Device};

/// Opens a device by name: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes the first GPU that works, else the CPU.
pub fn open_device(name: &str) -> Result<Device> {
    let cuda = |index: usize| {
        Device::new_cuda(index).map_err(|e| Error::Device { message: format!("cannot use CUDA device {index}: {e}") })
    };
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" if !cfg!(feature = "cuda") => Ok(Device::Cpu),
        "auto" => Ok(cuda(0).unwrap_or_else(|e| {
            log::info!("running on the CPU: {e}");
            Device::Cpu
        })),
        _ => {
            let index = match name.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
                None => None,
            };
            match index {
                Some(_) if !cfg!(feature = "cuda") => Err(Error::NotSupported {
                    message:
                        "this library was built without CUDA; rebuild it with `--features cuda`, or use device cpu"
                            .into(),
                }),
                Some(index) => cuda(index),
                None => Err(Error::invalid("device", format!("\"{name}\" is not one of auto, cpu, cuda, cuda:N"))),
            }
        }
    }
}

/// A number format by name: `auto`, `f32` or `bf16`. `auto` is bf16 on a GPU and f32 on the CPU.
///
/// f16 is not offered: activations of the 7B model exceed its range.
pub fn parse_dtype(name: &str, device: &Device) -> Result<DType> {
    match name {
        "auto" if device.is_cuda() => Ok(DType::BF16),
        "auto" | "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        _ => Err(Error::invalid("dtype", format!("\"{name}\" is not one of auto, f32, bf16"))),
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
        assert_eq!(parse_dtype("auto", &Device::Cpu).unwrap(), DType::F32);
        assert!(parse_dtype("f16", &Device::Cpu).is_err());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_without_cuda_is_refused_with_the_remedy() {
        let error = open_device("cuda:1").unwrap_err();
        assert!(matches!(error, Error::NotSupported { .. }) && error.to_string().contains("--features cuda"));
        assert!(open_device("auto").unwrap().is_cpu());
    }
}
