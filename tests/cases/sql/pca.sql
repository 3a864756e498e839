-- The matrices of MADlib's manual, and the numbers that it prints (the sign of a component is anybody's choice).
DROP TABLE IF EXISTS mat;
CREATE TABLE mat (id integer, row_vec double precision[]);
INSERT INTO mat VALUES (1, '{1,2,3}'), (2, '{2,1,2}'), (3, '{3,2,1}');
SELECT madlib.pca_train('mat', 'result_table', 'id', 2);
SELECT row_id, abs(principal_components[1]), abs(principal_components[2]), std_dev, proportion FROM result_table ORDER BY row_id;
--> [1, 0.707106781186547, 0, 1.41421356237309, 0.857142857142857]
--> [2, 0, 1, 0.577350269189626, 0.142857142857143]
SELECT column_mean FROM result_table_mean;
--> [[2, 1.6666666666666667, 2]]
SELECT madlib.pca_project('mat', 'result_table', 'out_table', 'id', 'residual_table', 'result_summary_table');
SELECT row_id, abs(row_vec[1]), abs(row_vec[2]) FROM out_table ORDER BY row_id;
--> [1, 1.41421356237309, 0.33333333333]
--> [2, 0, 0.66666666667]
--> [3, 1.41421356237309, 0.33333333333]
SELECT residual_norm < 1e-12, relative_residual_norm < 1e-12, exec_time > 0 FROM result_summary_table;
--> [true, true, true]

-- groups may be of different width
CREATE TABLE mat_group (id integer, row_vec double precision[], matrix_id integer);
INSERT INTO mat_group VALUES (1, '{1,2,3}', 1), (2, '{2,1,2}', 1), (3, '{3,2,1}', 1), (4, '{1,2,3,4,5}', 2), (5, '{2,5,2,4,1}', 2), (6, '{5,4,3,2,1}', 2);
SELECT madlib.pca_train('mat_group', 'result_table_group', 'id', 0.8, 'matrix_id');
SELECT matrix_id, row_id, std_dev, proportion FROM result_table_group ORDER BY matrix_id, row_id;
--> [1, 1, 1.4142135623731, 0.857142857142857]
--> [2, 1, 3.2315220311722, 0.764102534485173]
--> [2, 2, 1.795531127192, 0.235897465516047]
SELECT madlib.pca_project('mat_group', 'result_table_group', 'mat_group_projected', 'id');
SELECT matrix_id, row_id, abs(row_vec[1]), abs(row_vec[2]) FROM mat_group_projected WHERE matrix_id = 2 ORDER BY row_id;
--> [2, 4, 3.59290479201926, 0.559694003674779]
--> [2, 5, 0.924092949098971, 2.00871628417505]
--> [2, 6, 2.66881184290186, 1.44902228049511]
