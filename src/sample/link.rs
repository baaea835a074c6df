//! The seam between host and device while drawing: what crosses it, and what is kept on the device, is counted here.
//!
//! Nothing else in this room makes a tensor from host values or reads one; a test looks.

use crate::device::to_host;
use crate::Result;
use candle_core::{Device, Shape, Tensor, WithDType};
use std::cell::Cell;

/// What a drawing has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Forward passes of the transformer, that of the prompts included.
    pub passes: u64,
    /// Tensors sent to the device, and numbers in them.
    pub uploads: u64,
    pub uploaded: u64,
    /// Tensors read from the device, and numbers in them.
    pub downloads: u64,
    pub downloaded: u64,
    /// Buffers allocated to be kept: caches and tables.
    pub buffers: u64,
}

/// The way to the device and back.
pub struct Link {
    device: Device,
    traffic: Cell<Traffic>,
}

impl Link {
    pub fn new(device: &Device) -> Self {
        Link { device: device.clone(), traffic: Cell::default() }
    }

    pub fn traffic(&self) -> Traffic {
        self.traffic.get()
    }

    fn count(&self, change: impl FnOnce(&mut Traffic)) {
        let mut traffic = self.traffic.get();
        change(&mut traffic);
        self.traffic.set(traffic);
    }

    /// Sends numbers to the device.
    pub fn upload<T: WithDType>(&self, numbers: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
        self.count(|t| {
            t.uploads += 1;
            t.uploaded += numbers.len() as u64;
        });
        Ok(Tensor::from_vec(numbers, shape.into(), &self.device)?)
    }

    /// Waits for the device and reads [rows, numbers] from it.
    pub fn download(&self, numbers: &Tensor) -> Result<Vec<Vec<u32>>> {
        self.count(|t| {
            t.downloads += 1;
            t.downloaded += numbers.elem_count() as u64;
        });
        Ok(to_host(numbers)?.to_vec2()?)
    }

    /// Allocates what is to be kept.
    pub fn buffer<T>(&self, allocate: impl FnOnce(&Device) -> Result<T>) -> Result<T> {
        self.count(|t| t.buffers += 1);
        allocate(&self.device)
    }

    /// To be told of each forward pass.
    pub fn pass(&self) {
        self.count(|t| t.passes += 1);
    }
}
