"""What helps to test stores, agents and sessions: also for those who write their own."""
