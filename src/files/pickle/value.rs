//! The values that a pickle describes, in one flat arena in which they refer to each other by number.
//!
//! So neither sharing nor depth nor a list inside itself costs anything: there is no recursion, nor when values are
//! dropped. Text stays in the pickle.

/// Longer text is no name of anything. Keeps a hostile pickle from making us read one long text a million times.
const MAX_TEXT: u32 = 1024;

/// The number of a value in its [`Values`].
pub type Id = u32;

/// A value that a pickle describes.
#[derive(Debug)]
pub enum Value {
    None,
    Int(i64),
    /// Text, as the place of its bytes in the pickle.
    Text(Span),
    /// A Python class or function, by name.
    Global {
        module: Span,
        name: Span,
    },
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A reference to something outside the pickle.
    Persistent(Id),
    /// What Python would get by calling `function`; we do not.
    Call {
        function: Id,
        arguments: Id,
    },
    /// Something we have no use for.
    Opaque,
}

/// A part of the pickle's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// All values of one pickle.
pub struct Values<'a> {
    pub(super) pickle: &'a [u8],
    pub(super) all: Vec<Value>,
    pub(super) root: Id,
}

impl<'a> Values<'a> {
    /// The value that the whole pickle stands for.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The value of a number; something opaque for a number that was never given.
    pub fn get(&self, id: Id) -> &Value {
        self.all.get(id as usize).unwrap_or(&Value::Opaque)
    }

    /// The value as text of a reasonable length.
    pub fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Text(span) => self.span(*span),
            _ => None,
        }
    }

    /// The value as a number that counts something.
    pub fn count(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(i) => usize::try_from(*i).ok(),
            _ => None,
        }
    }

    /// The value as a tuple of such numbers.
    pub fn counts(&self, id: Id) -> Option<Vec<usize>> {
        match self.get(id) {
            Value::Tuple(items) if items.len() <= 16 => items.iter().map(|&i| self.count(i)).collect(),
            _ => None,
        }
    }

    /// The module and name of a class or function.
    pub fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        match self.get(id) {
            Value::Global { module, name } => Some((self.span(*module)?, self.span(*name)?)),
            _ => None,
        }
    }

    fn span(&self, span: Span) -> Option<&'a str> {
        let start = span.start as usize;
        if span.len > MAX_TEXT {
            return None;
        }
        std::str::from_utf8(self.pickle.get(start..start + span.len as usize)?).ok()
    }
}
