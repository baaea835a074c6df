//! What a pretrained model is: text tokenizer, image tokenizer, transformer.

pub mod checkpoint;
pub mod files;
pub mod lumina;
pub mod ops;
pub mod personalized;
mod pickle;
pub mod subject;
pub mod text;
pub mod tokens;
pub mod vqgan;

use lumina::layout::Layout;
use lumina::transformer::Transformer;
use text::Text;

pub struct Model {
    transformer: Transformer,
    layout: Layout,
    text: Text,
    name: String,
    fingerprint: String,
}

impl Model {
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    pub fn text(&self) -> &Text {
        &self.text
    }
    pub fn device(&self) -> &candle_core::Device {
        self.transformer.device()
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
