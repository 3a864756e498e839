-- The weather of MADlib's manual, and the numbers that it prints.
DROP TABLE IF EXISTS example_data CASCADE;
CREATE TABLE example_data (id SERIAL, outlook TEXT, temperature FLOAT8, humidity FLOAT8, windy TEXT, class TEXT, day TEXT);
INSERT INTO example_data VALUES
  (1, 'sunny', 85, 85, 'false', 'Dont Play', 'Mon'), (2, 'sunny', 80, 90, 'true', 'Dont Play', 'Mon'), (3, 'overcast', 83, 78, 'false', 'Play', 'Mon'),
  (4, 'rain', 70, 96, 'false', 'Play', 'Mon'), (5, 'rain', 68, 80, 'false', 'Play', 'Mon'), (6, 'rain', 65, 70, 'true', 'Dont Play', 'Mon'),
  (7, 'overcast', 64, 65, 'true', 'Play', 'Mon'), (8, 'sunny', 72, 95, 'false', 'Dont Play', 'Mon'), (9, 'sunny', 69, 70, 'false', 'Play', 'Mon'),
  (10, 'rain', 75, 80, 'false', 'Play', 'Mon'), (11, 'sunny', 75, 70, 'true', 'Play', 'Mon'), (12, 'overcast', 72, 90, 'true', 'Play', 'Mon'),
  (13, 'overcast', 81, 75, 'false', 'Play', 'Mon'), (14, 'rain', 71, 80, 'true', 'Dont Play', 'Mon'), (15, NULL, 100, 100, 'true', NULL, 'Mon'),
  (16, NULL, 110, 100, 'true', NULL, 'Mon'), (101, 'sunny', 85, 85, 'false', 'Dont Play', 'Tues'), (102, 'sunny', 80, 90, 'true', 'Dont Play', 'Tues'),
  (103, 'overcast', 83, 78, 'false', 'Play', 'Tues'), (104, 'rain', 70, 96, 'false', 'Play', 'Tues'), (105, 'rain', 68, 80, 'false', 'Play', 'Tues'),
  (106, 'rain', 65, 70, 'true', 'Dont Play', 'Tues'), (107, 'overcast', 64, 65, 'true', 'Play', 'Tues'), (108, 'sunny', 72, 95, 'false', 'Dont Play', 'Tues'),
  (109, 'sunny', 69, 70, 'false', 'Play', 'Tues'), (110, 'rain', 75, 80, 'false', 'Play', 'Tues'), (111, 'sunny', 75, 70, 'true', 'Play', 'Tues'),
  (112, 'overcast', 72, 90, 'true', 'Play', 'Tues'), (113, 'overcast', 81, 75, 'false', 'Play', 'Tues'), (114, 'rain', 71, 80, 'true', 'Dont Play', 'Tues'),
  (115, NULL, 100, 100, 'true', NULL, 'Tues'), (116, NULL, 110, 100, 'true', NULL, 'Tues'), (201, 'sunny', 85, 85, 'false', 'Dont Play', 'Wed'),
  (202, 'sunny', 80, 90, 'true', 'Dont Play', 'Wed'), (203, 'overcast', 83, 78, 'false', 'Play', 'Wed'), (204, 'rain', 70, 96, 'false', 'Play', 'Wed'),
  (205, 'rain', 68, 80, 'false', 'Play', 'Wed'), (206, 'rain', 65, 70, 'true', 'Dont Play', 'Wed'), (207, 'overcast', 64, 65, 'true', 'Play', 'Wed'),
  (208, 'sunny', 7, 95, 'false', 'Dont Play', 'Wed'), (209, 'sunny', 6, 70, 'false', 'Play', 'Wed'), (210, 'rain', 7, 80, 'false', 'Play', 'Wed'),
  (211, 'sunny', 75, 70, 'true', 'Play', 'Wed'), (212, 'overcast', 72, 90, 'true', 'Play', 'Wed'), (213, 'overcast', 81, 75, 'false', 'Play', 'Wed'),
  (214, 'rain', 71, 80, 'true', 'Dont Play', 'Wed'), (215, NULL, 10, 100, 'true', NULL, 'Wed'), (216, NULL, 10, 100, 'true', NULL, 'Wed'),
  (217, 'sunny', 85, 85, 'false', 'Dont Play', 'Wed'), (218, 'sunny', 80, 9, 'true', 'Dont Play', 'Wed'), (219, 'overcast', 83, 78, 'false', 'Play', 'Wed'),
  (220, 'rain', 70, 9, 'false', 'Play', 'Wed'), (221, 'rain', 68, 80, 'false', 'Play', 'Wed');

SELECT madlib.correlation('example_data', 'example_data_output', 'temperature, humidity');
SELECT * FROM example_data_output ORDER BY column_position;
--> [1, "temperature", 1, null]
--> [2, "humidity", 0.00607993890408995, 1]
SELECT * FROM example_data_output_summary;
--> ["Correlation", "example_data", "example_data_output", ["temperature", "humidity"], [70.188679245283, 79.8679245283019], 53]
DROP TABLE IF EXISTS example_data_output, example_data_output_summary;
SELECT madlib.correlation('example_data', 'example_data_output', 'temperature, humidity', FALSE, 'day');
SELECT column_position, variable, day, temperature, humidity FROM example_data_output ORDER BY day, column_position;
--> [1, "temperature", "Mon", 1, null]
--> [2, "humidity", "Mon", 0.616876934548786, 1]
--> [1, "temperature", "Tues", 1, null]
--> [2, "humidity", "Tues", 0.616876934548786, 1]
--> [1, "temperature", "Wed", 1, null]
--> [2, "humidity", "Wed", -0.28969669368457, 1]
DROP TABLE IF EXISTS example_data_output, example_data_output_summary;
SELECT madlib.covariance('example_data', 'example_data_output', 'temperature, humidity');
SELECT * FROM example_data_output ORDER BY column_position;
--> [1, "temperature", 507.926664293343, null]
--> [2, "humidity", 2.40227839088644, 307.359914560342]
