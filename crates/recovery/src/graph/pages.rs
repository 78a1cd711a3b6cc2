use std::sync::Arc;

/// Elements of one page.
const PAGE: usize = 16;

/// A growing list that is cheap to copy: copies share pages, and a page is copied when one of them changes it.
#[derive(Clone, Debug)]
pub(super) struct Pages<T> {
    pages: Vec<Arc<[T; PAGE]>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages { pages: Vec::new(), len: 0 }
    }
}

impl<T: Clone + Default> Pages<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        if index < self.len { self.pages.get(index / PAGE)?.get(index % PAGE) } else { None }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let index = index as usize;
        if index >= self.len {
            return None;
        }
        Arc::make_mut(self.pages.get_mut(index / PAGE)?).get_mut(index % PAGE)
    }

    /// Adds an element; answers its number.
    pub(super) fn push(&mut self, value: T) -> u32 {
        if self.len == self.pages.len() * PAGE {
            self.pages.push(Arc::new(std::array::from_fn(|_| T::default())));
        }
        let number = u32::try_from(self.len).unwrap_or(u32::MAX);
        self.len += 1;
        if let Some(place) = self.get_mut(number) {
            *place = value;
        }
        number
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter()).take(self.len)
    }

    /// Changes every element.
    pub(super) fn for_each_mut(&mut self, mut change: impl FnMut(&mut T)) {
        let len = self.len;
        let all = self.pages.iter_mut().flat_map(|page| Arc::make_mut(page).iter_mut()).take(len);
        all.for_each(&mut change);
    }
}
