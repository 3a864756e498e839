-- The irises of MADlib's manual, and the numbers that it prints.
CREATE TABLE iris (id INT, sepal_length FLOAT, sepal_width FLOAT, petal_length FLOAT, petal_width FLOAT, class_name text);
INSERT INTO iris VALUES
  (1,5.1,3.5,1.4,0.2,'Iris-setosa'), (2,4.9,3.0,1.4,0.2,'Iris-setosa'), (3,4.7,3.2,1.3,0.2,'Iris-setosa'),
  (4,4.6,3.1,1.5,0.2,'Iris-setosa'), (5,5.0,3.6,1.4,0.2,'Iris-setosa'), (6,5.4,3.9,1.7,0.4,'Iris-setosa'),
  (7,4.6,3.4,1.4,0.3,'Iris-setosa'), (8,5.0,3.4,1.5,0.2,'Iris-setosa'), (9,4.4,2.9,1.4,0.2,'Iris-setosa'),
  (10,4.9,3.1,1.5,0.1,'Iris-setosa'), (11,7.0,3.2,4.7,1.4,'Iris-versicolor'), (12,6.4,3.2,4.5,1.5,'Iris-versicolor'),
  (13,6.9,3.1,4.9,1.5,'Iris-versicolor'), (14,5.5,2.3,4.0,1.3,'Iris-versicolor'), (15,6.5,2.8,4.6,1.5,'Iris-versicolor'),
  (16,5.7,2.8,4.5,1.3,'Iris-versicolor'), (17,6.3,3.3,4.7,1.6,'Iris-versicolor'), (18,4.9,2.4,3.3,1.0,'Iris-versicolor'),
  (19,6.6,2.9,4.6,1.3,'Iris-versicolor'), (20,5.2,2.7,3.9,1.4,'Iris-versicolor'), (21,6.3,3.3,6.0,2.5,'Iris-virginica'),
  (22,5.8,2.7,5.1,1.9,'Iris-virginica'), (23,7.1,3.0,5.9,2.1,'Iris-virginica'), (24,6.3,2.9,5.6,1.8,'Iris-virginica'),
  (25,6.5,3.0,5.8,2.2,'Iris-virginica'), (26,7.6,3.0,6.6,2.1,'Iris-virginica'), (27,4.9,2.5,4.5,1.7,'Iris-virginica'),
  (28,7.3,2.9,6.3,1.8,'Iris-virginica'), (29,6.7,2.5,5.8,1.8,'Iris-virginica'), (30,7.2,3.6,6.1,2.5,'Iris-virginica');

SELECT output_table, num_col_summarized FROM madlib.summary('iris', 'iris_summary', NULL, NULL, TRUE, TRUE, NULL, 10, FALSE);
--> ["iris_summary", 6]
SELECT group_by, group_by_value, target_column, column_number, data_type, row_count, distinct_values, missing_values, blank_values, fraction_missing,
    positive_values, negative_values, zero_values, mean, variance, confidence_interval, min, max, first_quartile, median, third_quartile,
    mfv_frequencies FROM iris_summary WHERE target_column IN ('sepal_length', 'class_name') ORDER BY column_number;
--> [null, null, "sepal_length", 2, "float8", 30, 22, 0, null, 0, 30, 0, 0, 5.84333333333333, 0.929436781609188, [5.49834423494374, 6.18832243172292], 4.4, 7.6, 4.925, 5.75, 6.575, [4, 3, 2, 2, 2, 1, 1, 1, 1, 1]]
--> [null, null, "class_name", 6, "text", 30, 3, 0, 0, 0, null, null, null, null, null, null, 11, 15, null, null, null, [10, 10, 10]]
SELECT most_frequent_values FROM iris_summary WHERE target_column = 'class_name';
--> [["Iris-setosa", "Iris-versicolor", "Iris-virginica"]]
DROP TABLE IF EXISTS iris_summary;
SELECT num_col_summarized FROM madlib.summary('iris', 'iris_summary', 'sepal_length', 'class_name', TRUE, TRUE, ARRAY[0.1, 0.9]);
--> [1]
SELECT group_by, group_by_value, row_count, quantile_array FROM iris_summary ORDER BY group_by_value LIMIT 1;
--> ["class_name", "Iris-setosa", 10, [4.58, 5.13]]
