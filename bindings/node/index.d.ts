/// <reference lib="esnext.disposable" />

import type { EvaluatorFields, Method, OpenFields, SampleFields, TrainFields } from './src/options';

export type { EvaluatorFields, Method, OpenFields, SampleFields, TrainFields };

/** The version of the library. */
export function version(): string;
/** How the library was built. */
export function buildInfo(): BuildInfo;
/** The devices that models can be opened on. */
export function devices(): Device[];
/**
 * How many bytes a model and the work with it would take at their worst moments, weights included. Nothing is opened.
 * `sample` and `train` are options over those that the model recommends.
 */
export function estimate(
  path: string | URL,
  given?: {
    device?: OpenFields['device'];
    dtype?: OpenFields['dtype'];
    textEncoder?: OpenFields['textEncoder'];
    sample?: Partial<SampleFields>;
    train?: Partial<TrainFields> & { method?: Method };
  },
): Estimate;
/** Whether the library has a feature: `cuda`, `cudnn`, `embedded_model`, `embedded_infinity`, `evaluator`. */
export function hasFeature(name: string): boolean;
/** Writes a PNG file. It appears whole or not at all. */
export function savePng(path: string | URL, image: ImageInput): Promise<void>;

export interface Estimate {
  weights: number;
  encode: number;
  decode: number;
  sample: number;
  /** Training stage 1. */
  embedding: number;
  /** Training stage 2. */
  layers: number;
  /** Of stage 2, in the memory of the host beside a GPU. */
  layers_host: number;
  /** What the device could still give. */
  free: number | null;
}

export interface BuildInfo {
  version: string;
  target: string;
  profile: string;
  compiler: string;
  commit: string;
  [more: string]: unknown;
}

export interface Device {
  name: string;
  hardware: string | null;
  memoryBytes: number | null;
  memoryFreeBytes: number | null;
}

/** RGB pixels, three bytes each, rows from top to bottom. */
export interface Image {
  data: Uint8Array;
  width: number;
  height: number;
  channels: 3;
}

/**
 * A PNG, JPEG or WebP file, or pixels: bytes, or floats from 0 to 1, rows from top to bottom. `channels` follows from the
 * length of `data` where it is left out; transparency is laid on white, and a training learns
 * what is opaque only.
 */
export type ImageInput = string | URL | Pixels;

export interface Pixels {
  data: Uint8Array | Uint8ClampedArray | Float32Array;
  width: number;
  height: number;
  channels?: 3 | 4;
}

/** A grid of image tokens: `height` rows of `width` indices into the model's codebook. */
export interface GridLike {
  grid: Uint32Array | readonly number[];
  width: number;
  height: number;
}

/**
 * Image tokens of one picture. Models that draw scale after scale (Infinity) have several grids: the last one, and those `before`
 * it, coarse to fine.
 */
export interface TokensLike extends GridLike {
  before?: readonly GridLike[];
}

export interface Grid {
  grid: Uint32Array;
  width: number;
  height: number;
}

export class Tokens implements TokensLike, Grid {
  constructor(
    grid: Uint32Array | readonly number[],
    width: number,
    height: number,
    before?: readonly GridLike[],
  );
  /** Tokens of several grids, coarse to fine. */
  static ofGrids(grids: readonly GridLike[]): Tokens;
  grid: Uint32Array;
  width: number;
  height: number;
  /** Left out where there is one grid. */
  before?: Grid[];
  /** All grids, coarse to fine. */
  readonly grids: Grid[];
}

/**
 * What an error says: `status` and `code` are those of the C library (`SITTER_E_NOT_FOUND`), `detail` the chain of causes,
 * a line each, often empty.
 */
export class SitterError extends Error {
  constructor(status: number, message: string, detail?: string);
  readonly name: 'SitterError';
  status: number;
  code: string;
  detail: string;
}

export type Stage =
  | 'waiting'
  | 'open'
  | 'encode'
  | 'prior'
  | 'embedding'
  | 'layers'
  | 'sample'
  | 'score'
  | 'decode'
  | 'unknown';

/** `done` of `total` units of `stage` are finished. */
export interface ProgressEvent {
  /** Says what is counted: layers, pictures, training steps, tokens. */
  stage: Stage;
  /** Never falls within a stage. */
  done: number;
  /** 0 if it is not known. */
  total: number;
  /** Since the call began. */
  elapsedMs: number;
  /** Nats per token, in the training stages. */
  loss: number | null;
  /** Which of `itemCount` things the stage is at, from 0. */
  item: number;
  itemCount: number;
  /** What went wrong so far without ending the call, such as a checkpoint that could not be written; the words are in the log. */
  warnings: number;
}

/** Controls of a long call. Calls of one model wait for each other, unless it was opened for more `maxJobs`. */
export interface Controls {
  /** Stops the call, which rejects with the signal's reason. */
  signal?: AbortSignal;
  /**
   * Called on the thread that made the call, at most every 50 ms, when there is something new; steps in between share an
   * event. What it throws, or what its promise rejects with, stops the call and is what the call rejects with.
   */
  onProgress?: (event: ProgressEvent) => unknown;
  /** More ways to control the call. A run serves one call. */
  run?: Run;
}

/** Controls one long call. */
export class Run {
  constructor();
  /** Stops the call, which rejects with a SitterError of code `SITTER_E_CANCELLED`; before the call, it never starts. */
  cancel(): void;
  /** Ends a training at its next step, with what was learned so far; other calls ignore it. */
  finishEarly(): void;
  /**
   * The complete rows so far of a picture, from 0, of those that the call is drawing or drew last; null while there is none,
   * or if there is no such picture. `decode` of the same model waits for the call to end, that of another opening does not.
   */
  tokens(picture?: number): Tokens | null;
  /** The newest event; null before the first. */
  snapshot(): ProgressEvent | null;
  close(): void;
  [Symbol.dispose](): void;
}

export interface OpenOptions extends OpenFields, Controls {
  /** Threads of each call; 0, the default, takes one per core. */
  threads?: number;
  /** Calls that may work at the same time, 1 to 64; others wait for them. Default 1. */
  maxJobs?: number;
}

export interface EncodeOptions extends Controls {
  /**
   * The side, in pixels, of the square whose area the picture is brought to, as in training. Left out, a picture that the
   * model could have drawn is taken as it is, and another one fitted.
   */
  size?: number;
}

export interface ScoreOptions extends Controls {
  subjects?: readonly Subject[] | null;
}

export interface SampleOptions extends SampleFields, Controls {
  /** Pictures to draw in one batch, 1 to 256. Default 1. */
  count?: number;
  /** Subjects that the prompt names by their identifiers. */
  subjects?: readonly Subject[] | null;
}

export interface TrainOptions extends TrainFields, Controls {
  /** Default `two_stage`, for Infinity `arbooth`. */
  method?: Method;
  /** One for each picture, with the identifier in it; left out, the pictures are learned under the templates. */
  captions?: readonly string[] | null;
}

export interface ModelInfo {
  family: string;
  name: string;
  fingerprint: string;
  parameters: number;
  vocabulary: number;
  codebook: number;
  /** Sides of pictures are multiples of it. */
  gridUnitPx: number;
  device: string;
  dtype: string;
  canDecode: boolean;
  /** The terms of the family's published weights, where they are known. */
  licence?: string;
  sampleDefaults: Required<SampleFields>;
  [more: string]: unknown;
}

/** A pretrained model. Calls reject with a SitterError. */
export class Model {
  private constructor();
  /** Opens a model folder, or `embedded:`, the small model inside the library, or `embedded:infinity`, which some builds have. */
  static open(path: string | URL, options?: OpenOptions): Promise<Model>;
  readonly info: ModelInfo;
  /** All options of `sample` with what the model recommends. */
  sampleOptions(): Required<SampleFields> & { count: number };
  /** All options of `train` with their defaults. */
  trainOptions(method?: Method): Required<TrainFields> & { method: Method };
  encode(image: ImageInput, options?: EncodeOptions): Promise<Tokens>;
  decode(tokens: TokensLike, controls?: Controls): Promise<Image>;
  /** How surprising the model finds a picture under a prompt: mean nats per labelled token; lower is likelier. */
  score(prompt: string, picture: ImageInput | TokensLike, options?: ScoreOptions): Promise<number>;
  score(prompt: string, pictures: readonly (ImageInput | TokensLike)[], options?: ScoreOptions): Promise<number[]>;
  sample(prompt: string, options?: SampleOptions): Promise<Sample[]>;
  /** Teaches the model a subject from a few pictures; the model stays as it is. */
  train(images: readonly ImageInput[], options?: TrainOptions): Promise<Subject>;
  close(): void;
  [Symbol.dispose](): void;
}

/** One drawn picture. It is decoded when it is asked for, by its model, which must not be closed before. */
export class Sample {
  private constructor();
  readonly tokens: Tokens;
  image(controls?: Controls): Promise<Image>;
  /** Writes a PNG file that says what made it. */
  savePng(path: string | URL, controls?: Controls): Promise<void>;
  close(): void;
  [Symbol.dispose](): void;
}

export interface SubjectInfo {
  identifier: string;
  classWord: string;
  /** Fingerprint of the model that it was trained on, which alone can use it. */
  model: string;
  /** The terms of that model's weights, where they were known when it was taught. */
  licence?: string;
  method: Method;
  vectors: number;
  changedWeights: number;
  storedNumbers: number;
  steps: number;
  lastLoss: number | null;
  options: Record<string, unknown>;
  [more: string]: unknown;
}

export interface Loss {
  stage: 'embedding' | 'layers' | 'unknown';
  /** Within the stage, from 0. */
  step: number;
  /** Nats per token. */
  loss: number;
}

/** What training learned about one subject. */
export class Subject {
  private constructor();
  static load(path: string | URL): Promise<Subject>;
  /** Writes a subject file. It appears whole or not at all. */
  save(path: string | URL): Promise<void>;
  readonly info: SubjectInfo;
  /** One for each step of the training. */
  readonly losses: Loss[];
  close(): void;
  [Symbol.dispose](): void;
}

export interface EvaluatorOptions extends EvaluatorFields, Controls {
  /** Threads of each call; 0, the default, takes one per core. */
  threads?: number;
  /** Calls that work at the same time; others wait for them. Default 1. */
  maxJobs?: number;
}

export type Protocol = 'A' | 'B' | 'C' | 'D';

export interface MeasureOptions extends Controls {
  /**
   * What the pictures were to show, with {} in the place of the identifier ("a {} dog in the snow"): one for each, or one for
   * all.
   */
  texts?: string | readonly string[];
  /** A: DreamBooth. B, the default: arXiv 2504.13162. C: Kosmos-G, OmniGen, one reference. D: ARBooth, ViCo. */
  protocol?: Protocol;
  /** The subject's word in prompts, for the score of whole prompts. */
  identifier?: string | null;
  /** Drawn with the subject of prompts that name only its class: they tell how far it leaked there. */
  classPictures?: readonly ImageInput[];
  /** The same drawn by the model without the subject. */
  untouched?: readonly ImageInput[];
}

/** Cosines; null for what a network that was not opened would say. */
export interface Similarities {
  /** DINO, to the references: the mean over them, the first one, the one most alike. */
  dino: number | null;
  dinoOne: number | null;
  dinoMax: number | null;
  /** CLIP, to the references, likewise. */
  clipI: number | null;
  clipIOne: number | null;
  clipIMax: number | null;
  /** CLIP, to the text that the protocol reads; to the text without the identifier; to the whole prompt. */
  clipT: number | null;
  clipTClass: number | null;
  clipTPrompt: number | null;
}

/** Scores of one picture. */
export interface Scored extends Similarities {
  /** The file, or "picture 3", counted from 1. */
  name: string;
  text: string;
  /** The reference that it is most like, from 0 among those that could be read. */
  nearest: number | null;
  /** Whether it is as like a reference as the two references that are most alike, or more. */
  copy: boolean | null;
}

export interface NetworkFile {
  file: string;
  sha256: string;
}

export interface NetworkInfo {
  /** Numbers of a vector. */
  size: number;
  side: number;
  patch: number;
  layers: number;
  files: NetworkFile[];
  [more: string]: unknown;
}

export interface EvaluatorInfo {
  dino: NetworkInfo | null;
  clip: NetworkInfo | null;
  lpips: NetworkFile[] | null;
}

/** Scores of one subject: means over its pictures, and each picture's own. */
export interface Scores extends Similarities {
  protocol: Protocol;
  /** What the protocol looks at, compares and averages, in words. */
  rules: Record<string, unknown>;
  pictures: number;
  references: number;
  /** Texts that differ. */
  texts: number;
  copies: number | null;
  copyThreshold: number | null;
  /** The references among themselves: what good pictures come near and only copies exceed. */
  real: { pairs: number; dino: number | null; clipI: number | null } | null;
  /** How far the subject has taken over its class; a share of 0 leaves the class what it was, of 1 makes it the subject. */
  leakage: {
    pictures: number;
    untouchedPictures: number;
    pres: number | null;
    untouched: number | null;
    share: number | null;
  } | null;
  /** LPIPS between pictures of the same text. */
  diversity: number | null;
  each: Scored[];
  failed: { role: 'picture' | 'reference' | 'class_picture' | 'untouched'; name: string; message: string }[];
  networks: EvaluatorInfo;
  [more: string]: unknown;
}

/** Networks that measure pictures as the papers do, on the CPU. Calls reject with a SitterError. */
export class Evaluator {
  private constructor();
  static open(options: EvaluatorOptions): Promise<Evaluator>;
  readonly info: EvaluatorInfo;
  /** DINO's vector of a picture, as the network gives it, not of length 1. */
  dino(image: ImageInput, controls?: Controls): Promise<Float32Array>;
  dino(images: readonly ImageInput[], controls?: Controls): Promise<Float32Array[]>;
  clipImage(image: ImageInput, controls?: Controls): Promise<Float32Array>;
  clipImage(images: readonly ImageInput[], controls?: Controls): Promise<Float32Array[]>;
  clipText(text: string, controls?: Controls): Promise<Float32Array>;
  clipText(texts: readonly string[], controls?: Controls): Promise<Float32Array[]>;
  /**
   * Measures pictures of one subject against those that it was taught with. Files are read when their turn comes; those that
   * cannot be read are listed in the result.
   */
  score(
    pictures: ImageInput | readonly ImageInput[],
    references: ImageInput | readonly ImageInput[],
    options?: MeasureOptions,
  ): Promise<Scores>;
  close(): void;
  [Symbol.dispose](): void;
}
