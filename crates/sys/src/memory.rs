//! The C library's allocator: few arenas, and pages given back after big work.
//!
//! glibc gives each thread that finds the others busy an arena of its own and keeps what was freed in it; a daemon that
//! once unpacked a large image would then hold that memory for good. Other C libraries have neither knob nor problem.

#![allow(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper")]

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

#[cfg(test)]
mod tests {
    #[test]
    fn trimming_leaves_live_memory_alone() {
        super::limit_arenas(2);
        let kept: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        drop(vec![1u8; 8 << 20]);
        super::trim();
        assert!(kept.iter().zip((0..=255u8).cycle()).all(|(a, b)| *a == b));
    }
}
