//! Pictures in the making: what a run has drawn so far, for whoever wants to watch.

use crate::tokens::Tokens;
use std::sync::{Arc, Mutex, MutexGuard};

/// The codes that a run has drawn so far, or drew last. Clones look at the same canvas, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Canvas(Arc<Mutex<Grids>>);

#[derive(Debug, Default)]
struct Grids {
    width: u32,
    /// Of each picture the codes so far, in raster order.
    codes: Vec<Vec<u32>>,
    /// Instead, of pictures that come scale after scale: the grids so far.
    whole: Vec<Tokens>,
}

impl Canvas {
    /// Shows the codes so far of all pictures, which have `width` codes in a row.
    pub fn show(&self, width: u32, codes: &[Vec<u32>]) {
        let mut grids = self.lock();
        grids.width = width;
        grids.whole.clear();
        // Into the memory that is there: this is done for each code drawn.
        codes.clone_into(&mut grids.codes);
    }

    /// Shows pictures that come scale after scale, coarse to fine.
    pub fn show_grids(&self, pictures: Vec<Tokens>) {
        self.lock().whole = pictures;
    }

    /// The complete rows so far of a picture, or its complete grids; None if there are none, or no such picture.
    pub fn rows(&self, picture: usize) -> Option<Tokens> {
        let grids = self.lock();
        if !grids.whole.is_empty() {
            return grids.whole.get(picture).cloned();
        }
        let codes = grids.codes.get(picture)?;
        let height = (codes.len() as u32).checked_div(grids.width)?;
        Tokens::new(height, grids.width, codes[..(height * grids.width) as usize].to_vec()).ok()
    }

    /// A panic cannot leave the grids half changed in a way that matters to a watcher.
    fn lock(&self) -> MutexGuard<'_, Grids> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_rows_are_given_away() {
        let canvas = Canvas::default();
        assert_eq!(canvas.rows(0), None);
        canvas.show(2, &[vec![1], vec![5]]);
        assert_eq!(canvas.rows(0), None);
        canvas.clone().show(2, &[vec![1, 2, 3], vec![5, 6, 7]]);
        assert_eq!(canvas.rows(1), Some(Tokens::new(1, 2, vec![5, 6]).unwrap()));
        assert_eq!(canvas.rows(2), None);
        canvas.show(1, &[vec![9, 8]]);
        assert_eq!(canvas.rows(0), Some(Tokens::new(2, 1, vec![9, 8]).unwrap()));
        assert_eq!(canvas.rows(1), None);
    }
}
