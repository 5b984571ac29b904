#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    kotoba_fuzz::wal_recover::run(data);
});
