#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    kotoba_fuzz::world::run(data);
});
