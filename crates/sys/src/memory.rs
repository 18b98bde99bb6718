//! The C library's allocator: few arenas, and pages given back after big work.
//!
//! glibc gives each thread that finds the others busy an arena of its own and keeps what was freed in it; a daemon that
//! once unpacked a large image would then hold that memory for good. Other C libraries have neither knob nor problem.

#![allow(unsafe_code, reason = "mallopt, malloc_trim and mallinfo2 have no safe wrapper")]

/// Limits the allocator to `arenas` arenas. To be called before threads are started.
pub fn limit_arenas(arenas: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and only changes the allocator's own settings, under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(arenas));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = arenas;
}

/// Gives free pages of all arenas back to the kernel. Takes milliseconds on a large heap.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the number of bytes to keep at the top and touches only memory that nobody owns.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The allocator's account of the heap, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Taken from the kernel in arenas.
    pub from_kernel: u64,
    /// Taken from the kernel one by one, for large blocks.
    pub mapped: u64,
    /// Of the arenas, handed out.
    pub in_use: u64,
    /// Of the arenas, not handed out, whether or not the kernel has the pages back.
    pub free: u64,
}

/// How the heap is used; `None` where the C library does not tell.
pub fn heap() -> Option<Heap> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallinfo2 takes nothing and returns numbers, read under the allocator's own locks.
        let info = unsafe { libc::mallinfo2() };
        Some(Heap {
            from_kernel: info.arena as u64,
            mapped: info.hblkhd as u64,
            in_use: info.uordblks as u64,
            free: info.fordblks as u64,
        })
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_handed_out_is_on_the_account() {
        let kept = vec![1u8; 50_000];
        let Some(heap) = super::heap() else { return };
        assert!(heap.in_use > 0 && heap.from_kernel + heap.mapped >= kept.len() as u64, "{heap:?}");
    }

    #[test]
    fn trimming_leaves_live_memory_alone() {
        super::limit_arenas(2);
        let kept: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        drop(vec![1u8; 8 << 20]);
        super::trim();
        assert!(kept.iter().zip((0..=255u8).cycle()).all(|(a, b)| *a == b));
    }
}
