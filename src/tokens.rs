//! A picture as the transformer sees it: a grid of VQ codes.

use crate::{Error, Result};

/// VQ indices in raster order, rows top to bottom. Not yet vocabulary ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    height: u32,
    width: u32,
    codes: Vec<u32>,
}

impl Tokens {
    /// A grid of `height` rows of `width` codes.
    pub fn new(height: u32, width: u32, codes: Vec<u32>) -> Result<Self> {
        let expected = u64::from(height) * u64::from(width);
        if expected == 0 || expected != codes.len() as u64 {
            let found = codes.len();
            return Err(Error::invalid(
                "tokens",
                format!("a grid of {height} rows by {width} cannot hold {found} codes"),
            ));
        }
        Ok(Tokens { height, width, codes })
    }

    /// Rows of the grid.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Codes in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    pub fn into_codes(self) -> Vec<u32> {
        self.codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_holds_exactly_its_codes() {
        let tokens = Tokens::new(2, 3, (0..6).collect()).unwrap();
        assert_eq!((tokens.height(), tokens.width(), tokens.codes()[5]), (2, 3, 5));
        assert!(Tokens::new(2, 3, vec![0; 5]).is_err());
        assert!(Tokens::new(0, 3, vec![]).is_err());
        assert!(Tokens::new(u32::MAX, u32::MAX, vec![0; 5]).is_err());
    }
}
