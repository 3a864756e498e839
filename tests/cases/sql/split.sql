-- The rows of MADlib's manual: how many of each group go where is exact.
CREATE TABLE test (id1 INTEGER, id2 INTEGER, gr1 INTEGER, gr2 INTEGER);
INSERT INTO test VALUES
  (1,0,1,1), (2,0,1,1), (3,0,1,1), (4,0,1,1), (5,0,1,1), (6,0,1,1),
  (7,0,1,1), (8,0,1,1), (9,0,1,1), (9,0,1,1), (9,0,1,1), (9,0,1,1),
  (0,1,1,2), (0,2,1,2), (0,3,1,2), (0,4,1,2), (0,5,1,2), (0,6,1,2),
  (10,10,2,2), (20,20,2,2), (30,30,2,2), (40,40,2,2), (50,50,2,2), (60,60,2,2),
  (70,70,2,2);

SELECT madlib.train_test_split('test', 'out', 0.5, 0.5, 'gr1,gr2', 'id1,id2', FALSE, FALSE);
SELECT gr1, gr2, split, count(*) FROM out GROUP BY gr1, gr2, split ORDER BY split, gr1, gr2;
--> [1, 1, 0, 6]
--> [1, 2, 0, 3]
--> [2, 2, 0, 4]
--> [1, 1, 1, 6]
--> [1, 2, 1, 3]
--> [2, 2, 1, 3]
SELECT count(*) FROM (SELECT id1, id2, gr1, gr2 FROM out EXCEPT ALL SELECT * FROM test) AS made_up;
--> [0]
DROP TABLE IF EXISTS out, out_train, out_test;
SELECT madlib.train_test_split('test', 'out', 0.5, NULL, 'gr1,gr2', 'id1,id2', TRUE, TRUE);
SELECT gr1, gr2, count(*) FROM out_train GROUP BY gr1, gr2 ORDER BY gr1, gr2;
--> [1, 1, 6]
--> [1, 2, 3]
--> [2, 2, 3]
SELECT gr1, gr2, count(*) FROM out_test GROUP BY gr1, gr2 ORDER BY gr1, gr2;
--> [1, 1, 6]
--> [1, 2, 3]
--> [2, 2, 4]
