//! Tensors in a quarter of the room: numbers of 8 bits, and a scale for every 32 of them in a tensor of its own. The models inside the
//! library are kept so.

use super::values::{limit, offenders};
use super::{Checkpoint, Entry, Stored};
use crate::device::memory;
use crate::Result;
use candle_core::{DType, Device, Tensor};
use half::f16;
use rayon::prelude::*;

/// Numbers with one scale, in the order of the tensor; the last may be fewer.
const GROUP: usize = 32;

/// What the scales of a tensor are called.
fn scales_of(name: &str) -> String {
    format!("{name}.scales")
}

impl Checkpoint {
    /// The scales of a tensor of 8-bit numbers, if it has any.
    pub(super) fn scales(&self, name: &str, entry: &Entry) -> Option<&Entry> {
        match &entry.stored {
            Stored::Other(kind) if kind == "I8" && entry.view.is_none() => self.entries.get(&scales_of(name)),
            _ => None,
        }
    }

    /// Each number times its scale.
    pub(super) fn load_scaled(
        &self,
        name: &str,
        entry: &Entry,
        scales: &Entry,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let (numbers, factors) = (self.checked(name, entry)?, self.checked(&scales_of(name), scales)?);
        let groups = numbers.len().div_ceil(GROUP);
        if scales.stored != Stored::F16 || scales.view.is_some() || factors.len() != 2 * groups {
            let expected = format!("{groups} numbers of F16, one for every {GROUP} of {name}");
            let found = format!("shape {:?} of {}", scales.shape, scales.stored.name());
            return Err(self.wrong(scales, &scales_of(name), expected, found));
        }
        if offenders(DType::F16, &factors, limit(DType::F16, DType::F16)?).is_some() {
            return Err(self.offence(&scales_of(name), scales, DType::F16, &factors, DType::F16));
        }
        let mut values = memory::zeros::<f32>(&self.sources[entry.file].path, numbers.len())?;
        let groups = values.par_chunks_mut(GROUP).zip(numbers.par_chunks(GROUP)).zip(factors.par_chunks(2));
        groups.for_each(|((to, from), factor)| {
            let factor = f16::from_le_bytes([factor[0], factor[1]]).to_f32();
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = f32::from(from as i8) * factor);
        });
        if dtype == DType::F16 && values.iter().any(|x| x.abs() > f16::MAX.to_f32()) {
            return Err(self.wrong(entry, name, "values that f16 can hold", "larger ones; use bf16 or f32"));
        }
        Ok(Tensor::from_vec(values, entry.shape.as_slice(), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use safetensors::tensor::{Dtype, TensorView};

    fn opened(numbers: &[i8], shape: Vec<usize>, scales: &[f16]) -> (tempfile::TempDir, Checkpoint) {
        let numbers: Vec<u8> = numbers.iter().map(|&n| n as u8).collect();
        let factors: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        let tensors = [
            ("x", TensorView::new(Dtype::I8, shape, &numbers).unwrap()),
            ("x.scales", TensorView::new(Dtype::F16, vec![scales.len()], &factors).unwrap()),
        ];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), safetensors::serialize(tensors, None).unwrap())
            .unwrap();
        let checkpoint = Checkpoint::open(&Files::Folder(folder.path().to_owned()), "model").unwrap();
        (folder, checkpoint)
    }

    #[test]
    fn each_number_comes_with_the_scale_of_its_group() {
        let numbers: Vec<i8> = (0..70).map(|i| (i - 35) as i8).collect();
        let scales = [0.5, 2.0, -1.0].map(f16::from_f32);
        let (_folder, checkpoint) = opened(&numbers, vec![2, 5, 7], &scales);
        let x = checkpoint.get("x", &[2, 5, 7], DType::F32, &Device::Cpu).unwrap();
        let expected: Vec<f32> =
            numbers.iter().enumerate().map(|(i, &n)| f32::from(n) * scales[i / 32].to_f32()).collect();
        assert_eq!(x.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
        let half = checkpoint.get("x", &[2, 5, 7], DType::BF16, &Device::Cpu).unwrap();
        assert_eq!(half.dtype(), DType::BF16);
    }

    #[test]
    fn scales_that_are_too_few_or_not_finite_are_an_error_that_names_them() {
        let said = |scales: &[f16]| {
            let (_folder, checkpoint) = opened(&[1; 40], vec![40], scales);
            checkpoint.get("x", &[40], DType::F32, &Device::Cpu).unwrap_err().to_string()
        };
        let few = said(&[f16::ONE]);
        assert!(few.contains("x.scales") && few.contains("2 numbers of F16"), "{few}");
        let infinite = said(&[f16::ONE, f16::INFINITY]);
        assert!(infinite.contains("x.scales") && infinite.contains("NaN or infinite"), "{infinite}");
    }

    #[test]
    fn numbers_of_8_bits_without_scales_are_no_weights() {
        let numbers = [1u8; 4];
        let tensors = [("x", TensorView::new(Dtype::I8, vec![4], &numbers).unwrap())];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), safetensors::serialize(tensors, None).unwrap())
            .unwrap();
        let checkpoint = Checkpoint::open(&Files::Folder(folder.path().to_owned()), "model").unwrap();
        let said = checkpoint.get("x", &[4], DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(said.contains("I8"), "{said}");
    }
}
