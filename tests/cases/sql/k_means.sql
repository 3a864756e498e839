-- The wines of MADlib's manual, from two of its points, and the numbers that it prints.
CREATE TABLE km_sample (pid int, points double precision[]);
INSERT INTO km_sample VALUES
  (1, '{14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.0600, 0.2800, 2.29, 5.64, 1.04, 3.92, 1065}'),
  (2, '{13.2, 1.78, 2.14, 11.2, 1, 2.65, 2.76, 0.26, 1.28, 4.38, 1.05, 3.49, 1050}'),
  (3, '{13.16, 2.36, 2.67, 18.6, 101, 2.8, 3.24, 0.3, 2.81, 5.6799, 1.03, 3.17, 1185}'),
  (4, '{14.37, 1.95, 2.5, 16.8, 113, 3.85, 3.49, 0.24, 2.18, 7.8, 0.86, 3.45, 1480}'),
  (5, '{13.24, 2.59, 2.87, 21, 118, 2.8, 2.69, 0.39, 1.82, 4.32, 1.04, 2.93, 735}'),
  (6, '{14.2, 1.76, 2.45, 15.2, 112, 3.27, 3.39, 0.34, 1.97, 6.75, 1.05, 2.85, 1450}'),
  (7, '{14.39, 1.87, 2.45, 14.6, 96, 2.5, 2.52, 0.3, 1.98, 5.25, 1.02, 3.58, 1290}'),
  (8, '{14.06, 2.15, 2.61, 17.6, 121, 2.6, 2.51, 0.31, 1.25, 5.05, 1.06, 3.58, 1295}'),
  (9, '{14.83, 1.64, 2.17, 14, 97, 2.8, 2.98, 0.29, 1.98, 5.2, 1.08, 2.85, 1045}'),
  (10, '{13.86, 1.35, 2.27, 16, 98, 2.98, 3.15, 0.22, 1.8500, 7.2199, 1.01, 3.55, 1045}');

CREATE TABLE km_result AS
SELECT * FROM madlib.kmeans('km_sample', 'points',
    (SELECT ARRAY[(SELECT points FROM km_sample WHERE pid = 6), (SELECT points FROM km_sample WHERE pid = 1)]),
    'madlib.squared_dist_norm2', 'madlib.avg', 20, 0.001);
SELECT * FROM km_result;
--> [[[14.255, 1.9325, 2.5025, 16.05, 110.5, 3.055, 2.9775, 0.2975, 1.845, 6.2125, 0.9975, 3.365, 1378.75], [13.7533333333333, 1.905, 2.425, 16.0666666666667, 90.3333333333333, 2.805, 2.98, 0.29, 2.005, 5.40663333333333, 1.04166666666667, 3.31833333333333, 1020.83333333333]], [30561.74805, 122999.110416013], 153560.858466013, 0, 2]
SELECT * FROM madlib.simple_silhouette('km_sample', 'points', (SELECT centroids FROM km_result), 'madlib.squared_dist_norm2');
--> [0.868174608939623]
CREATE TABLE point_cluster_map AS
SELECT data.*, (madlib.closest_column(centroids, points, 'madlib.squared_dist_norm2')).* FROM km_sample AS data, km_result;
ALTER TABLE point_cluster_map RENAME column_id TO cluster_id;
SELECT pid, cluster_id, distance FROM point_cluster_map ORDER BY pid;
--> [1, 1, 3296.12614333444]
--> [2, 1, 8856.90882600111]
--> [3, 1, 27072.3216580044]
--> [4, 0, 10261.9450375]
--> [5, 1, 82492.8673553345]
--> [6, 0, 5080.3612375]
--> [7, 0, 8090.4485875]
--> [8, 0, 7128.9931875]
--> [9, 1, 634.301947334443]
--> [10, 1, 646.584486004443]
