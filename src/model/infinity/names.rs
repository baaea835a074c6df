//! What the weights of a block are called and what they serve.

use super::config::Config;
use crate::weights::Spec;

/// Names of a block's weights, without the block's; [`Role`] numbers them.
pub const NAMES: [&str; 19] = [
    "ada_gss",
    "sa.scale_mul_1H11",
    "sa.mat_qkv.weight",
    "sa.q_bias",
    "sa.v_bias",
    "sa.proj.weight",
    "sa.proj.bias",
    "ca_norm.weight",
    "ca_norm.bias",
    "ca.mat_q.weight",
    "ca.mat_q.bias",
    "ca.mat_kv.weight",
    "ca.v_bias",
    "ca.proj.weight",
    "ca.proj.bias",
    "ffn.fc1.weight",
    "ffn.fc1.bias",
    "ffn.fc2.weight",
    "ffn.fc2.bias",
];

/// A weight of a block, by number in [`NAMES`].
pub type Role = usize;
pub const ADAPTIVE: Role = 0;
pub const STRENGTH: Role = 1;
pub const QKV: Role = 2;
pub const Q_BIAS: Role = 3;
pub const V_BIAS: Role = 4;
pub const SELF_OUT: Role = 5;
pub const CROSS_NORM: Role = 7;
pub const CROSS_Q: Role = 9;
pub const CROSS_KV: Role = 11;
pub const CROSS_V_BIAS: Role = 12;
pub const CROSS_OUT: Role = 13;
pub const UP: Role = 15;
pub const DOWN: Role = 17;

/// The matrices, which alone are quantised and take low-rank changes.
const MATRICES: [Role; 7] = [QKV, SELF_OUT, CROSS_Q, CROSS_KV, CROSS_OUT, UP, DOWN];

/// What weights may be chosen by to learn: those of each sub-layer, and what ARBooth teaches (arXiv 2504.02612, section 3.2).
pub const ROLES: [&str; 5] = ["self_attention", "cross_attention", "mlp", "qkv", "arbooth"];

/// The weights of block `index`, in the order of [`NAMES`].
pub fn specs(config: &Config, index: usize) -> Vec<Spec> {
    let (c, h) = (config.width, config.hidden);
    let dims: [&[usize]; 19] = [
        &[1, 1, 6, c],
        &[1, config.heads, 1, 1],
        &[3 * c, c],
        &[c],
        &[c],
        &[c, c],
        &[c],
        &[c],
        &[c],
        &[c, c],
        &[c],
        &[2 * c, c],
        &[c],
        &[c, c],
        &[c],
        &[h, c],
        &[h],
        &[c, h],
        &[c],
    ];
    let roles = |role: Role| -> &'static [&'static str] {
        match role {
            QKV | Q_BIAS | V_BIAS => &["self_attention", "qkv"],
            STRENGTH | SELF_OUT | 6 => &["self_attention"],
            CROSS_Q..UP => &["cross_attention", "arbooth"],
            UP.. => &["mlp", "arbooth"],
            _ => &[],
        }
    };
    let spec = |(role, (name, dims)): (Role, (&&str, &[usize]))| Spec {
        name: format!("{}.{name}", config.blocks[index]),
        layer: Some(index),
        roles: roles(role),
        dims: dims.to_vec(),
        linear: MATRICES.contains(&role),
    };
    NAMES.iter().zip(dims).enumerate().map(spec).collect()
}
