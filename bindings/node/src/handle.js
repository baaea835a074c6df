'use strict';
// Objects of the library, and the JavaScript objects that own them.

const { call, native } = require('./library.js');
const { SitterError } = require('./error.js');
const { Weight } = require('./memory.js');
const { constants } = require('./abi.json');

const lost = new FinalizationRegistry(({ noun, pointer, weight }) => {
  native()[`${noun}_free`](pointer);
  weight.lift();
});

/**
 * One reference to an object of the library. A call on Node's pool may begin after its owner was closed, so whoever makes
 * one holds the handle until it has ended; the reference is given back when it is closed and nobody holds it.
 */
class Handle {
  #noun;
  #pointer;
  #holders = 0;
  #closed = false;
  #weight;
  #ballast;

  constructor(noun, pointer) {
    this.#noun = noun;
    this.#pointer = pointer;
    this.#weight = new Weight(noun, pointer);
    this.#ballast = this.#weight.ballast();
    lost.register(this, { noun, pointer, weight: this.#weight }, this);
  }

  /** The pointer as long as there is an object, closed or not; else null. */
  get raw() {
    return this.#pointer;
  }

  get pointer() {
    if (this.#closed) throw new SitterError(constants.E_WRONG_HANDLE, `the ${this.#noun} is closed`);
    return this.#pointer;
  }

  hold() {
    const { pointer } = this;
    this.#holders += 1;
    return pointer;
  }

  release() {
    this.#holders -= 1;
    this.#freeIfUnused();
  }

  close() {
    this.#closed = true;
    this.#freeIfUnused();
  }

  #freeIfUnused() {
    if (!this.#closed || this.#holders > 0 || this.#pointer === null) return;
    lost.unregister(this);
    native()[`${this.#noun}_free`](this.#pointer);
    this.#pointer = null;
    this.#ballast = null;
    this.#weight.lift();
  }
}

/** A handle from a function whose last argument is where it puts one. */
function create(noun, name, ...values) {
  const out = [null];
  call(name, ...values, out);
  return new Handle(noun, out[0]);
}

/** Holds handles while `work` runs, which gets their pointers. */
async function holding(handles, work) {
  const held = [];
  try {
    for (const handle of handles) {
      handle.hold();
      held.push(handle);
    }
    return await work(...held.map((handle) => handle.raw));
  } finally {
    for (const handle of held) handle.release();
  }
}

/** Closes handles when `work`, which gets their pointers, has ended. */
async function closing(handles, work) {
  try {
    return await work(...handles.map((handle) => handle.pointer));
  } finally {
    for (const handle of handles) handle.close();
  }
}

const handles = new WeakMap();

/** Makes `object` the owner of a handle. */
function own(object, handle) {
  handles.set(object, handle);
  return object;
}

/** The handle of an object that must be of a class. */
function handleOf(object, Class) {
  if (!(object instanceof Class) || !handles.has(object)) {
    throw new TypeError(`a ${Class.name} is needed, not ${object === null ? 'null' : typeof object}`);
  }
  return handles.get(object);
}

/** What all owners have. */
class Owner {
  /** Gives the object back to the library, or leaves it to the call in progress to do so. */
  close() {
    handles.get(this)?.close();
  }
}
if (Symbol.dispose) {
  Owner.prototype[Symbol.dispose] = function dispose() {
    this.close();
  };
}

module.exports = { Handle, Owner, closing, create, handleOf, holding, own };
