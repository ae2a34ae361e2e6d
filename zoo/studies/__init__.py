"""Many runs: tables of papers, sweeps, benchmarks and reports."""
