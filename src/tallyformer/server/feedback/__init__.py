"""Rated answers: what is kept in a database, off until a server is told where.

an answer ── Exchanges (memory, bounded) ── POST /v1/feedback ── FeedbackStore (database)
                                                                 └ export ── pairs for `sft`
"""
