-- When the next run that is not due yet will be; each priority's first, by the index.
SELECT min(w.run_at)
  FROM generate_series(0, 9) AS p (priority),
       LATERAL (SELECT run_at FROM due_work
                 WHERE priority = p.priority AND run_at > now() ORDER BY run_at LIMIT 1) AS w
