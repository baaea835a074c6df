//! The machine that pickle programs run on, made harmless: it builds plain values and calls nothing.

use super::value::{Id, Span, Value, Values};
use std::collections::HashMap;

/// More than any checkpoint of a few thousand tensors with optimizer states has; a bound for hostile ones.
const MAX_STEPS: usize = 2_000_000;

/// Runs the program. `pickle` must be shorter than 4 GiB; the caller's bound is far below.
pub fn run(pickle: &[u8]) -> Result<Values<'_>, String> {
    let mut machine = Machine {
        pickle,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        all: vec![Value::Opaque, Value::None],
        copied: 0,
    };
    for _ in 0..MAX_STEPS {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok(Values { pickle, all: machine.all, root }),
            Err(what) => return Err(format!("its pickle is broken at byte {at}: {what}")),
        }
    }
    Err(format!("its pickle has more than {MAX_STEPS} steps; save only the tensors"))
}

// The values that need no new place in the arena.
const OPAQUE: Id = 0;
const NONE: Id = 1;

const CUT: &str = "it breaks off";
const EMPTY: &str = "a value is missing";

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    all: Vec<Value>,
    /// How many items were copied out of lists.
    copied: usize,
}

type Step<T> = Result<T, &'static str>;

impl Machine<'_> {
    /// Runs one instruction; the result of the program if that was its last one.
    fn step(&mut self) -> Step<Option<Id>> {
        match self.byte()? {
            0x80 => {
                if self.byte()? > 5 {
                    return Err("it is of a protocol newer than 5");
                }
            }
            0x95 => self.skip(8)?, // FRAME
            b'.' => return self.pop().map(Some),

            b'N' => self.stack.push(NONE),
            0x88 | 0x89 => self.stack.push(OPAQUE), // True, False
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()));
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()));
            }
            0x8a => {
                let len = self.byte()? as usize;
                self.long(len)?;
            }
            0x8b => {
                let len = self.len4()?;
                self.long(len)?;
            }
            b'I' | b'L' => {
                let line = self.line()?;
                let text = self.bytes(line).strip_suffix(b"L").unwrap_or(self.bytes(line));
                let number = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
                self.push(number.map_or(Value::Opaque, Value::Int));
            }
            b'G' => {
                self.skip(8)?;
                self.stack.push(OPAQUE);
            }
            b'F' => {
                self.line()?;
                self.stack.push(OPAQUE);
            }

            b'X' => {
                let len = self.len4()?;
                self.text(len)?;
            }
            0x8c | b'U' => {
                let len = self.byte()? as usize;
                self.text(len)?;
            }
            0x8d => {
                let len = self.len8()?;
                self.text(len)?;
            }
            b'T' => {
                let len = self.len4()?;
                self.text(len)?;
            }
            b'V' => {
                let line = self.line()?;
                self.push(Value::Text(line));
            }
            b'S' => {
                let line = self.line()?;
                // Between its quotes. Escapes stay: no name of ours has any.
                let inner = Span { start: line.start + 1, len: line.len.checked_sub(2).ok_or(CUT)? };
                self.push(Value::Text(inner));
            }
            b'C' => {
                let len = self.byte()? as usize;
                self.opaque(len)?;
            }
            b'B' => {
                let len = self.len4()?;
                self.opaque(len)?;
            }
            0x8e | 0x96 => {
                let len = self.len8()?;
                self.opaque(len)?;
            }

            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                // At a mark, POP takes the mark.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }

            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            op @ 0x85..=0x87 => {
                let mut items = Vec::with_capacity(3);
                for _ in 0..op - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            0x8f => self.stack.push(OPAQUE), // EMPTY_SET
            0x90 => {
                self.pop_to_mark()?; // ADDITEMS to a set
                self.top()?;
            }
            0x91 => {
                self.pop_to_mark()?; // FROZENSET
                self.stack.push(OPAQUE);
            }

            b'q' => {
                let key = self.byte()?;
                self.put(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.put(key)?;
            }
            b'p' => {
                let key = self.line_number()?;
                self.put(key)?;
            }
            0x94 => self.put(self.memo.len() as u32)?, // MEMOIZE
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            b'g' => {
                let key = self.line_number()?;
                self.recall(key)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global { module, name });
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let value = match (self.get(module), self.get(name)) {
                    (&Value::Text(module), &Value::Text(name)) => Value::Global { module, name },
                    _ => return Err("a class without a name"),
                };
                self.push(value);
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)?;
            }
            0x92 => {
                self.pop()?; // NEWOBJ_EX: named arguments
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)?;
            }
            b'o' => {
                self.pop_to_mark()?;
                self.stack.push(OPAQUE);
            }
            b'i' => {
                self.line()?;
                self.line()?;
                self.pop_to_mark()?;
                self.stack.push(OPAQUE);
            }
            b'b' => {
                // BUILD: attributes, such as the `_metadata` of a state dict. The object stays what it is.
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            b'P' => {
                self.line()?;
                self.stack.push(OPAQUE);
            }
            0x82 => self.opaque(1)?, // EXT1 to EXT4: classes by number
            0x83 => self.opaque(2)?,
            0x84 => self.opaque(4)?,
            _ => return Err("an instruction that torch.save does not use"),
        }
        Ok(None)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.all.len() as Id);
        self.all.push(value);
    }

    fn get(&self, id: Id) -> &Value {
        self.all.get(id as usize).unwrap_or(&Value::Opaque)
    }

    /// The top value; never one from below the last open mark.
    fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(EMPTY);
        }
        self.stack.last().copied().ok_or(EMPTY)
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let floor = self.marks.pop().ok_or("a mark is missing")?;
        if floor > self.stack.len() {
            return Err(EMPTY);
        }
        Ok(self.stack.split_off(floor))
    }

    /// Appends to the list on top; what is on top may also be something opaque that only behaves like a list.
    fn append(&mut self, items: &[Id]) -> Step<()> {
        let top = self.top()?;
        if let Some(Value::List(list)) = self.all.get_mut(top as usize) {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Step<()> {
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value");
        }
        let top = self.top()?;
        if let Some(Value::Dict(dict)) = self.all.get_mut(top as usize) {
            dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    fn call(&mut self, function: Id, arguments: Id) -> Step<()> {
        let is_dict = match self.get(function) {
            Value::Global { module, name } => {
                self.bytes(*module) == b"collections" && matches!(self.bytes(*name), b"OrderedDict" | b"defaultdict")
            }
            _ => false,
        };
        if !is_dict {
            self.push(Value::Call { function, arguments });
            return Ok(());
        }
        // Python 2 passed the items here, as a list of pairs. The same long list may be passed again and again.
        let (mut items, mut copied) = (Vec::new(), self.copied);
        if let Value::Tuple(arguments) = self.get(arguments) {
            if let Some(Value::List(pairs)) = arguments.first().map(|&list| self.get(list)) {
                copied = self.copied + pairs.len();
                if copied > MAX_STEPS {
                    return Err("it copies the same list too often");
                }
                for &pair in pairs {
                    if let Value::Tuple(pair) | Value::List(pair) = self.get(pair) {
                        if let [key, value] = pair[..] {
                            items.push((key, value));
                        }
                    }
                }
            }
        }
        self.copied = copied;
        self.push(Value::Dict(items));
        Ok(())
    }

    fn put(&mut self, key: u32) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step<()> {
        let id = *self.memo.get(&key).ok_or("it refers to a value that it did not define")?;
        self.stack.push(id);
        Ok(())
    }

    fn byte(&mut self) -> Step<u8> {
        let byte = *self.pickle.get(self.at).ok_or(CUT)?;
        self.at += 1;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let span = self.take(N)?;
        self.bytes(span).try_into().map_err(|_| CUT)
    }

    fn len4(&mut self) -> Step<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn len8(&mut self) -> Step<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| CUT)
    }

    fn take(&mut self, len: usize) -> Step<Span> {
        let start = self.at;
        let end = start.checked_add(len).filter(|&end| end <= self.pickle.len()).ok_or(CUT)?;
        self.at = end;
        Ok(Span { start: start as u32, len: len as u32 })
    }

    fn skip(&mut self, len: usize) -> Step<()> {
        self.take(len).map(|_| ())
    }

    /// The text up to the end of the line.
    fn line(&mut self) -> Step<Span> {
        let rest = self.pickle.get(self.at..).ok_or(CUT)?;
        let len = rest.iter().position(|&b| b == b'\n').ok_or(CUT)?;
        let span = self.take(len)?;
        self.skip(1)?;
        Ok(span)
    }

    fn line_number(&mut self) -> Step<u32> {
        let line = self.line()?;
        let number = std::str::from_utf8(self.bytes(line)).ok().and_then(|text| text.parse().ok());
        number.ok_or("a number is not one")
    }

    fn text(&mut self, len: usize) -> Step<()> {
        let span = self.take(len)?;
        self.push(Value::Text(span));
        Ok(())
    }

    fn opaque(&mut self, len: usize) -> Step<()> {
        self.skip(len)?;
        self.stack.push(OPAQUE);
        Ok(())
    }

    /// An integer of `len` bytes; those beyond 64 bits (states of random generators) become opaque.
    fn long(&mut self, len: usize) -> Step<()> {
        let span = self.take(len)?;
        let bytes = self.bytes(span);
        if bytes.len() > 8 {
            self.stack.push(OPAQUE);
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn bytes(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.pickle.get(start..start + span.len as usize).unwrap_or_default()
    }
}
