//! Where a tensor of a file lies, and what it is.

use candle_core::DType;
use safetensors::tensor::Dtype;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// Where a tensor lies and what it is.
#[derive(Debug)]
pub(super) struct Entry {
    /// Which of the checkpoint's files.
    pub file: usize,
    pub stored: Stored,
    pub shape: Vec<usize>,
    /// Its bytes in the file; with a `view`, those of the whole storage that it is a view of.
    pub range: Range<usize>,
    pub view: Option<View>,
    /// The storage, or just its bytes, whose check sum covers it.
    pub storage: Option<usize>,
}

/// How a tensor that is not contiguous lies in its storage, in elements.
#[derive(Debug)]
pub(super) struct View {
    pub offset: usize,
    pub strides: Vec<usize>,
}

impl View {
    /// Whether the elements stand one after the other in their own order.
    pub fn is_contiguous(&self, shape: &[usize]) -> bool {
        let mut expected = 1;
        shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
    }
}

/// A storage of a PyTorch checkpoint, or a tensor of a file that this library wrote, with its check sum.
#[derive(Debug)]
pub(super) struct Storage {
    pub range: Range<usize>,
    /// CRC-32; 0 if the writer left it out.
    pub crc: u32,
    pub verified: AtomicBool,
}

impl Storage {
    pub fn new(range: Range<usize>, crc: u32) -> Self {
        Storage { range, crc, verified: AtomicBool::new(crc == 0) }
    }
}

/// The kind of numbers that a file has for a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    F16,
    BF16,
    F32,
    F64,
    /// None that weights come in; its name for messages.
    Other(String),
}

impl Stored {
    pub fn from_safetensors(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Stored::F16,
            Dtype::BF16 => Stored::BF16,
            Dtype::F32 => Stored::F32,
            Dtype::F64 => Stored::F64,
            other => Stored::Other(other.to_string()),
        }
    }

    /// From the name of a storage class, as in `torch.HalfStorage`, or of a dtype, as in `torch.float16`.
    pub fn from_torch(name: &str) -> Self {
        match name {
            "HalfStorage" | "float16" | "half" => Stored::F16,
            "BFloat16Storage" | "bfloat16" => Stored::BF16,
            "FloatStorage" | "float32" | "float" => Stored::F32,
            "DoubleStorage" | "float64" | "double" => Stored::F64,
            other => Stored::Other(other.to_owned()),
        }
    }

    /// Bytes per number, if it is one of the kinds that are read.
    pub fn size(&self) -> Option<usize> {
        self.dtype().map(|dtype| dtype.size_in_bytes())
    }

    pub fn dtype(&self) -> Option<DType> {
        match self {
            Stored::F16 => Some(DType::F16),
            Stored::BF16 => Some(DType::BF16),
            Stored::F32 => Some(DType::F32),
            Stored::F64 => Some(DType::F64),
            Stored::Other(_) => None,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Stored::F16 => "F16",
            Stored::BF16 => "BF16",
            Stored::F32 => "F32",
            Stored::F64 => "F64",
            Stored::Other(name) => name,
        }
    }
}
