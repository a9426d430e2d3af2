//! What a credential has learnt of servers, so that the next exchange with one is shorter. Bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::scheme::Hop;
use crate::target::Target;

/// Servers that are remembered at once.
const MAX_ORIGINS: usize = 256;

/// What is known of each server.
#[derive(Debug)]
pub(crate) struct Habits<T> {
    origins: Mutex<HashMap<Target, T>>,
    /// A credential for a parent proxy meets only that.
    proxy: Mutex<T>,
}

impl<T: Default> Default for Habits<T> {
    fn default() -> Self {
        Self { origins: Mutex::default(), proxy: Mutex::default() }
    }
}

impl<T: Clone + Default> Habits<T> {
    /// What is known of a server.
    pub(crate) fn get(&self, hop: Hop, target: &Target) -> T {
        match hop {
            Hop::Origin => {
                let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
                origins.get(target).cloned().unwrap_or_default()
            }
            Hop::ParentProxy => self.proxy.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Learns more of it. Where there are too many servers, all are forgotten: what is learnt saves time, no more.
    pub(crate) fn change(&self, hop: Hop, target: &Target, change: impl FnOnce(&mut T)) {
        match hop {
            Hop::Origin => {
                let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
                if origins.len() >= MAX_ORIGINS && !origins.contains_key(target) {
                    origins.clear();
                }
                change(origins.entry(target.clone()).or_default());
            }
            Hop::ParentProxy => change(&mut self.proxy.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}
