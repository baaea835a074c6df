// Made from the Rust options by tests/abi/node.rs; do not edit: `SITTER_UPDATE=1 cargo test --test abi`.

/** Where the networks of an evaluator are; at least one has to be given. */
export interface EvaluatorFields {
  /**
   * DINO, ViT-S/16 in the papers: a folder, or the authors' .pth file.
   */
  dino?: string | URL | null;
  /**
   * CLIP, ViT-B/32 in the papers: a folder.
   */
  clip?: string | URL | null;
  /**
   * LPIPS on AlexNet, for the diversity of pictures of one prompt: a folder with torchvision's weights of AlexNet
   * and the alex.pth of LPIPS, or a file with both.
   */
  lpips?: string | URL | null;
}

/** How a model is opened. */
export interface OpenFields {
  /**
   * `auto`, `cpu`, `cuda` or `cuda:N`.
   */
  device?: string;
  /**
   * `auto`, `f32`, `bf16`, `q8_0` or `q4_k`. The image tokenizer always runs in f32.
   */
  dtype?: 'auto' | 'f32' | 'bf16' | 'q8_0' | 'q4_k';
  /**
   * Whether quantised weights are kept in a file of the model's folder, `sitter.q8_0.safetensors` or
   * `sitter.q4_k.safetensors`: written when the model is opened so for the first time, read from then on.
   */
  keepQuantised?: boolean;
  /**
   * Of models whose text encoder is a network of its own: `keep` it in memory, or `unload` it when it has read the
   * texts of a call, which are remembered. `auto` keeps it where all weights together take at most half of the
   * memory that is free. Other models take `auto` only.
   */
  textEncoder?: 'auto' | 'keep' | 'unload';
}

/** How tokens are drawn. */
export interface SampleFields {
  /**
   * Pixels; a multiple of the model's grid unit.
   */
  width?: number;
  /**
   * Pixels; a multiple of the model's grid unit.
   */
  height?: number;
  /**
   * Classifier-free guidance scale; 1 switches it off and halves the work.
   */
  guidance?: number;
  /**
   * Only the k likeliest codes can be drawn; 0 allows all.
   */
  topK?: number;
  /**
   * Above 0; smaller is safer and duller.
   */
  temperature?: number;
  /**
   * The same seed gives the same picture.
   */
  seed?: number | bigint;
  /**
   * `sequential` draws code by code; `speculative` verifies several guesses in one pass and gives the same picture;
   * `speculative_distribution` needs fewer passes and gives another picture from the same distribution, which
   * `window` changes too. Default `sequential`; which is faster depends on model and machine, see docs/decoding.md.
   */
  decoding?: 'sequential' | 'speculative' | 'speculative_distribution';
  /**
   * Places that a pass of speculative decoding verifies, 2 to 256; 0, the default, leaves it to the library: 16,
   * but for `speculative` on a CPU as many as pay there.
   */
  window?: number;
  /**
   * Guidance of each scale instead of one for all, coarse to fine, of models that draw scale after scale; 0 to 100
   * each. The last one counts for the scales behind, too; more than the picture has scales are an error. Default
   * none.
   */
  guidanceByScale?: Float32Array | readonly number[];
  /**
   * Temperature of each scale instead of one for all, as `guidanceByScale`; 0.01 to 100 each. Default none.
   */
  temperatureByScale?: Float32Array | readonly number[];
  /**
   * Of each bit, the less likely value is never drawn if its probability is at most 1 less this; 0 to 1, and 1
   * allows all. Of models that draw bits, which recommend less (0.97).
   */
  topP?: number;
}

/** How a subject is taught. Defaults depend on the method and the model: see `Model.trainOptions`. */
export interface TrainFields {
  /**
   * The word that stands for the subject in prompts. No blanks, at most 64 bytes. Default `[V]`.
   */
  identifier?: string;
  /**
   * What the subject is, in a word or a few: `dog`. Needed unless `useClassWord` is false.
   */
  classWord?: string;
  /**
   * Whether the class word follows the identifier in the templates. Default true (paper).
   */
  useClassWord?: boolean;
  /**
   * Steps of the embedding stage; 0 leaves it out. 0 to 1 000 000, default 1500 (paper).
   */
  embeddingSteps?: number;
  /**
   * Learning rate of the vectors, in both stages. 0 to 10, default 0.01 (paper), `arbooth` 2.34375e-5 (ARBooth).
   */
  embeddingLearningRate?: number;
  /**
   * Vectors that stand for the identifier. 1 to 64, default 1 (paper).
   */
  embeddingVectors?: number;
  /**
   * The first values of the vectors: `hidden` numbers for all of them, or `embedding_vectors x hidden`. Default
   * none.
   */
  initialEmbedding?: Float32Array | readonly number[] | null;
  /**
   * A word whose rows of the vocabulary the vectors start from: a single vector from their mean, several each from
   * a row, in turn. Without this and `initialEmbedding` (not both) they start as normal noise. Default none.
   */
  initialWord?: string | null;
  /**
   * The size of that noise, as a multiple of the size that rows of the vocabulary have (paper: random, its size not
   * said). 0 to 10, default 1, `arbooth` 0: they start at zero.
   */
  initialNoise?: number;
  /**
   * Steps of the layers stage; 0 leaves it out. 0 to 1 000 000, default 70 (paper), `lora` 150 (paper: 100 to 170),
   * `arbooth` 500 (ARBooth).
   */
  layerSteps?: number;
  /**
   * Learning rate of the transformer's weights. 0 to 10, default 5e-6 (paper), `lora` 1e-4 (ours), `arbooth`
   * 2.34375e-5 (ARBooth).
   */
  layerLearningRate?: number;
  /**
   * Which weights learn in the layers stage: `qkv`, `attention`, `mlp`, `all` (norms included) or another role that
   * the model has, or names of weights separated by commas, in which `*` stands for anything. `lora` is an older
   * name for `qkv` with the adaptation `low_rank`. Default `qkv` (the paper's count of weights fits no other set).
   */
  trainable?: string;
  /**
   * How they learn: `full`, every number of them, or `low_rank`, two factors for each matrix whose product is added
   * to it. Default `full`, method `lora` `low_rank`.
   */
  adaptation?: 'full' | 'low_rank';
  /**
   * Rank of low-rank changes, at most the sides of the matrix. 1 to 1024, default 64 (paper: 16 to 256).
   */
  loraRank?: number;
  /**
   * Low-rank changes count this much divided by their rank. 0 for as much as the rank, so that they count once; at
   * most 10 000, default 0.
   */
  loraAlpha?: number;
  /**
   * Of the layers that may learn only every n-th does, the first among them. 1 to 1000, default 1 (paper: 1, 2, 4).
   */
  layerStride?: number;
  /**
   * The layers that may learn, by their number from 0. Default empty: all.
   */
  layers?: Uint32Array | readonly number[];
  /**
   * Whether the vectors go on learning in the layers stage. Default false (ours), `dreambooth` true.
   */
  trainEmbeddingInLayerStage?: boolean;
  /**
   * Pictures with their prompts in one step. 1 to 256, default 1 (paper).
   */
  batchSize?: number;
  /**
   * Groups that the pictures of a step are split into on a GPU; each goes through a layer by itself. On the CPU
   * each picture is a group of its own. The result is the same but for rounding. 1 to `batchSize`, default 1.
   */
  accumulation?: number;
  /**
   * AdamW's decay per step, times the learning rate, of the transformer's weights; the vectors have none. 0 to 10,
   * default 0.1 (Lumina).
   */
  weightDecay?: number;
  /**
   * 0 to below 1, default 0.9 (Lumina).
   */
  beta1?: number;
  /**
   * 0 to below 1, default 0.95 (Lumina).
   */
  beta2?: number;
  /**
   * Gradients are scaled down to this norm, taken over all that learns. 0 switches it off. Default 4.0 (Lumina).
   */
  clipNorm?: number;
  /**
   * Whether gradients are kept until their norm is known. If not, each step goes back twice, once for the norm and
   * once to update each layer as soon as its gradient is there: more than half more work, 4 bytes less for each
   * number that learns. Without `clipNorm` nothing is kept anyway. Default true.
   */
  keepGradients?: boolean;
  /**
   * What the optimizer's two running means are kept in: `f32` (8 bytes for each number that learns), `bf16` (4) or
   * `int8` (2). Default `f32`.
   */
  optimizerState?: 'f32' | 'bf16' | 'int8';
  /**
   * Where these and the values that learn are, and updates are made: `device`, that of the model, or `host`.
   * `device` needs `optimizerState` `f32` and `masterWeights`. Default `auto`: the device if it is a GPU on which
   * they fit. The numbers are the same but for rounding.
   */
  optimizerDevice?: 'auto' | 'device' | 'host';
  /**
   * Whether what learns is kept in f32 whatever the model runs in. If not, updates of a bf16 model are rounded at
   * random, and 2 bytes fewer are taken for each number that learns. Default true.
   */
  masterWeights?: boolean;
  /**
   * Whether the backward pass computes each layer anew (`always`), or keeps what it needs of all (`never`). Default
   * `auto`: by the memory that is free. The result is the same.
   */
  recompute?: 'auto' | 'always' | 'never';
  /**
   * Weight of the squared log-normaliser in the loss. 0 to 1, default 1e-5 (Lumina).
   */
  zLoss?: number;
  /**
   * Probability of zeroing an output of attention or MLP, in both stages. 0 to below 1, default 0.05 (Lumina's
   * script; its paper has 0.1).
   */
  dropout?: number;
  /**
   * Probability, in the layers stage, that a picture is learned without its prompt, so that guidance keeps
   * something to push off from. In the embedding stage such a picture would teach nothing. 0 to 1, default 0.1
   * (Lumina-mGPT 2.0).
   */
  guidanceDropout?: number;
  /**
   * Steps over which the learning rate rises from 0 at the start of each stage. Default 0 (Lumina: a hundredth of
   * an epoch).
   */
  warmupSteps?: number;
  /**
   * Last steps of the layers stage, over which its learning rate falls to 0 in a line; more than there are: all.
   * What the last pictures taught by chance is averaged away. Default 0: the rate stays (both papers).
   */
  cooldownSteps?: number;
  /**
   * Whether each picture gets a vector of its own, which stands at the end of half of its prompts, learns with the
   * identifier's and is dropped at the end: it takes up what is particular to the picture. Default true (paper),
   * `textual_inversion` and `dreambooth` false.
   */
  perImageTokens?: boolean;
  /**
   * Prompts, each with one `{}` for the subject. Default empty: the 27 of Textual Inversion (paper).
   */
  templates?: readonly string[];
  /**
   * Side of the square whose area the pictures are brought to, in pixels: the target of the crop-size list; a
   * multiple of the model's grid unit. Default 768.
   */
  imageSize?: number;
  /**
   * Crops at random places instead of the middle (Lumina). Without `augment` this makes eight crops of each
   * picture. Default false (ours).
   */
  randomCrop?: boolean;
  /**
   * Adds the mirror image of each picture. Default false (ours: subjects may hold writing).
   */
  flip?: boolean;
  /**
   * Varied copies of each picture that are learned beside it: zoomed by 0.8 to 1.12, shifted by up to an eighth of
   * each side (edges repeated), mirrored half of the time if `flip`, cropped anew if `randomCrop`. Default 0
   * (paper); worth having for small models, which else learn the pictures by heart.
   */
  augment?: number;
  /**
   * Varied copies are not zoomed, and shifted by whole patches of the image tokenizer only, so that their tokens
   * are those of the picture, moved. For models whose own pictures are drawn on that grid. Default false.
   */
  augmentAligned?: boolean;
  /**
   * Whether of a reference picture that is transparent in places only what shows the subject is learned: codes
   * whose pixels are all transparent, or in a coarse grid more than half of them, stand before others and teach
   * nothing, and its varied copies lie on a background of their own each. Without `augment` this makes eight copies
   * of such a picture. Without transparency, or if false, transparent pixels are white ones. Default true (ours).
   */
  maskedTraining?: boolean;
  /**
   * Weight of the loss on pictures of the plain class that the untouched model drew (DreamBooth); as many of them
   * as pictures of the subject are in each step of the layers stage. 0 switches it off. 0 to 100, default 0 (paper:
   * none).
   */
  priorWeight?: number;
  /**
   * Class pictures to draw. 1 to 10 000, default 32 (ours).
   */
  priorCount?: number;
  /**
   * Whether class pictures teach what the untouched model predicts of them, and not what they show (prior
   * distillation, ARBooth section 3.3): in each step the model draws new ones, as many as pictures of the subject,
   * and they make an update of their own behind the subject's, as in the released code. `priorCount` has no meaning
   * then. For families that draw scale after scale. Default false, `arbooth` true.
   */
  priorDistillation?: boolean;
  /**
   * What the untouched model predicts: `correct`, as it does when it draws, compared bit by bit, or `reference`, as
   * the released code of ARBooth computes it: each grid by itself, without those before it and at their places,
   * compared by one softmax over all numbers of a token. Default `correct`.
   */
  teacher?: 'correct' | 'reference';
  /**
   * What each grid counts in the loss, coarse to fine; the last number counts for the grids behind, too. For
   * families that draw scale after scale. Each 0 to 1000. Default empty: all count 1; `arbooth` 1 for the first
   * eight, then 0.5 (ARBooth).
   */
  scaleWeights?: Float32Array | readonly number[];
  /**
   * Up to this share of the bits of each grid is turned over in what later grids see, so that they learn to mend it
   * (bitwise self-correction, Infinity, arXiv 2412.04431, section 3.3). For families that draw scale after scale. 0
   * to 1, default 0, for Infinity 0.3 (Infinity).
   */
  selfCorrection?: number;
  /**
   * Steps, of both stages together, between two pictures of the subject that are drawn for people to look at while
   * it is learned; each takes as long as drawing a picture does, and changes nothing about the result. 0 for none,
   * at most 1 000 000, default 0.
   */
  sampleEvery?: number;
  /**
   * What these pictures are to show; the subject is named by its identifier. Default none: the first template.
   */
  samplePrompt?: string | null;
  /**
   * Ends the embedding stage when the mean loss of the last N steps is not at least 0.2% below that of the N steps
   * before. 0 switches it off. Default 0 (ours).
   */
  earlyStop?: number;
  /**
   * Steps between two checkpoints; 0 for none. Default 0.
   */
  checkpointEvery?: number;
  /**
   * The file that checkpoints are written to. If it is there when training begins, training goes on from it, to the
   * same result; a training that came to its end removes it. Default none.
   */
  checkpointPath?: string | URL | null;
  /**
   * The same seed, pictures and options give the same subject.
   */
  seed?: number | bigint;
}

/** How a subject is taught, in one word. */
export type Method = 'two_stage' | 'textual_inversion' | 'dreambooth' | 'lora' | 'arbooth';
