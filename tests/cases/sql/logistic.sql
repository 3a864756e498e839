-- The patients of MADlib's manual, and the numbers that it prints.
CREATE TABLE patients (id INTEGER NOT NULL, second_attack INTEGER, treatment INTEGER, trait_anxiety INTEGER);
INSERT INTO patients VALUES
  (1, 1, 1, 70), (2, 1, 1, 80), (3, 1, 1, 50), (4, 1, 0, 60), (5, 1, 0, 40),
  (6, 1, 0, 65), (7, 1, 0, 75), (8, 1, 0, 80), (9, 1, 0, 70), (10, 1, 0, 60),
  (11, 0, 1, 65), (12, 0, 1, 50), (13, 0, 1, 45), (14, 0, 1, 35), (15, 0, 1, 40),
  (16, 0, 1, 50), (17, 0, 0, 55), (18, 0, 0, 45), (19, 0, 0, 50), (20, 0, 0, 60);

SELECT madlib.logregr_train(
    'patients',                           -- source
    'patients_logregr',                   -- output
    'second_attack',
    'ARRAY[1, treatment, trait_anxiety]',
    NULL, 20, 'irls'
);
SELECT * FROM patients_logregr;
--> [[-6.36346994178192, -1.02410605239327, 0.119044916668607], -9.41018298388876, [3.21389766375099, 1.17107844860319, 0.0549790458269317], [-1.97998524145757, -0.874498248699539, 2.16527796868916], [0.0477051870698145, 0.381846973530455, 0.0303664045046183], [0.00172337630923221, 0.359117354054956, 1.12642051220895], 326.081922791575, 20, 0, 5, [[10.329138193064, -0.474304665195738, -0.171995901260057], "...", "..."]]
SELECT * FROM patients_logregr_summary;
--> ["logregr", "patients", "patients_logregr", "second_attack", "ARRAY[1, treatment, trait_anxiety]", "optimizer=irls, max_iter=20, tolerance=0.0001", 1, 0, 20, 0, null]
SELECT p.id, madlib.logregr_predict_prob(coef, ARRAY[1, treatment, trait_anxiety]), madlib.logregr_predict(coef, ARRAY[1, treatment, trait_anxiety])
FROM patients p, patients_logregr m ORDER BY p.id;
--> [1, 0.720223028941527, true]
--> [2, 0.894354902502048, true]
--> [3, 0.192269541755171, false]
--> [4, 0.685513072239347, true]
--> [5, 0.167747881508857, false]
--> [6, 0.79809810891514, true]
--> [7, 0.928568075752503, true]
--> [8, 0.959305763693571, true]
--> [9, 0.877576117431452, true]
--> [10, 0.685513072239347, true]
--> [11, 0.586700895943317, true]
--> [12, 0.192269541755171, false]
--> [13, 0.116032010632994, false]
--> [14, 0.0383829143134982, false]
--> [15, 0.0674976224147597, false]
--> [16, 0.192269541755171, false]
--> [17, 0.545870774302621, true]
--> [18, 0.267675422387132, false]
--> [19, 0.398618639285111, false]
--> [20, 0.685513072239347, true]
