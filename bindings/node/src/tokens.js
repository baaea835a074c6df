'use strict';
// Grids of image tokens.

const { create } = require('./handle.js');
const { call } = require('./library.js');
const { invalid } = require('./error.js');
const { list, u32 } = require('./values.js');

/** A grid of image tokens. */
class Grid {
  constructor(grid, width, height) {
    if (grid === undefined || grid === null) throw new TypeError('grid: an array is needed');
    this.grid = grid instanceof Uint32Array ? grid : Uint32Array.from(list(grid, 'grid', u32));
    this.width = u32(width, 'width');
    this.height = u32(height, 'height');
    if (this.grid.length !== this.width * this.height) {
      throw invalid('grid', `has ${this.grid.length} tokens; ${this.width}x${this.height} are needed`);
    }
  }
}

/** The image tokens of one picture: plain data. Of several grids the last one, and those `before` it, coarse to fine. */
class Tokens extends Grid {
  constructor(grid, width, height, before = []) {
    super(grid, width, height);
    const coarser = list(before, 'before', (one) => new Grid(one?.grid, one?.width, one?.height));
    if (coarser.length > 0) this.before = coarser;
  }

  static ofGrids(grids) {
    const all = list(grids, 'grids', (one) => one);
    const last = all.pop();
    return new Tokens(last?.grid, last?.width, last?.height, all);
  }

  get grids() {
    const { grid, width, height } = this;
    return [...(this.before ?? []), new Grid(grid, width, height)];
  }
}

/** The tokens of a pointer. */
function read(pointer) {
  const [count, needed] = [[0], [0]];
  call('tokens_grid_count', pointer, count);
  call('tokens_copy', pointer, null, 0, needed);
  const codes = new Uint32Array(needed[0]);
  call('tokens_copy', pointer, codes, codes.length, needed);
  const grids = [];
  for (let index = 0, first = 0; index < count[0]; index += 1) {
    const [width, height] = [[0], [0]];
    call('tokens_grid_at', pointer, index, width, height);
    const end = first + width[0] * height[0];
    grids.push({ grid: codes.slice(first, end), width: width[0], height: height[0] });
    first = end;
  }
  return Tokens.ofGrids(grids);
}

/** Whether a value is meant as tokens rather than as a picture. */
function isTokens(value) {
  return value !== null && typeof value === 'object' && 'grid' in value;
}

/** A handle of tokens, or of an object that is like them. The caller closes it. */
function toHandle(tokens) {
  if (!isTokens(tokens)) throw new TypeError('tokens: an object with grid, width and height is needed');
  const known = tokens instanceof Tokens ? tokens : new Tokens(tokens.grid, tokens.width, tokens.height, tokens.before);
  const { grids } = known;
  const sides = (side) => Uint32Array.from(grids, (one) => one[side]);
  const codes = new Uint32Array(grids.reduce((sum, { grid }) => sum + grid.length, 0));
  grids.reduce((first, { grid }) => (codes.set(grid, first), first + grid.length), 0);
  const pointer = codes.length > 0 ? codes : null;
  return create('tokens', 'tokens_from_grids', pointer, sides('width'), sides('height'), grids.length);
}

module.exports = { Tokens, isTokens, read, toHandle };
